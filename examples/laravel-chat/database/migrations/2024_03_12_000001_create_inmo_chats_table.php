<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class extends Migration
{
    public function up(): void
    {
        Schema::create('inmo_chats', function (Blueprint $table) {
            $table->id();
            $table->uuid('uuid')->unique();
            $table->string('type', 16)->default('private');
            $table->string('subject')->nullable();
            // The CRM's contact. Its table is not of this module, so there is no foreign key.
            $table->unsignedBigInteger('contact_id')->nullable()->index();
            $table->timestamps(6);
        });
    }

    public function down(): void
    {
        Schema::dropIfExists('inmo_chats');
    }
};
