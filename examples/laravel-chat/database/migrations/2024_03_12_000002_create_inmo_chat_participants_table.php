<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class extends Migration
{
    public function up(): void
    {
        Schema::create('inmo_chat_participants', function (Blueprint $table) {
            $table->foreignId('chat_id')->constrained('inmo_chats')->cascadeOnDelete();
            $table->foreignId('user_id')->constrained()->cascadeOnDelete();
            $table->timestamp('last_read_at', 6)->nullable();
            $table->boolean('is_muted')->default(false);
            $table->timestamps(6);

            $table->primary(['chat_id', 'user_id']);
            $table->index(['user_id', 'chat_id']);
        });
    }

    public function down(): void
    {
        Schema::dropIfExists('inmo_chat_participants');
    }
};
