<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class extends Migration
{
    public function up(): void
    {
        Schema::create('inmo_messages', function (Blueprint $table) {
            $table->id();
            $table->foreignId('chat_id')->constrained('inmo_chats')->cascadeOnDelete();
            // Null is a system message, so that a user with messages cannot just be deleted.
            $table->foreignId('user_id')->nullable()->constrained()->restrictOnDelete();
            $table->text('content');
            $table->string('type', 16)->default('text');
            $table->timestamp('read_at', 6)->nullable();
            $table->timestamps(6);

            // History, newest first; what was written since somebody read.
            $table->index(['chat_id', 'id']);
            $table->index(['chat_id', 'created_at']);
        });
    }

    public function down(): void
    {
        Schema::dropIfExists('inmo_messages');
    }
};
