<?php

use App\Http\Controllers\Api\Auth\AuthController;
use App\Http\Controllers\Api\Chat\ChatController;
use App\Http\Controllers\Api\Chat\ParticipantController;
use App\Http\Controllers\Api\Chat\WebhookController;
use Illuminate\Support\Facades\Route;

Route::post('auth/login', [AuthController::class, 'login'])->middleware('throttle:login');

// Resound has no token; its signature says who it is.
Route::post('webhooks/resound', WebhookController::class);

Route::middleware(['auth:sanctum', 'throttle:api'])->group(function () {
    Route::get('auth/user', [AuthController::class, 'user']);
    Route::post('auth/logout', [AuthController::class, 'logout']);

    Route::prefix('chat')->group(function () {
        Route::get('people', [ParticipantController::class, 'index']);

        Route::get('rooms', [ChatController::class, 'index']);
        Route::post('rooms', [ChatController::class, 'store']);

        Route::prefix('rooms/{chat}')->where(['chat' => '[0-9]+'])->middleware('can:participate,chat')->group(function () {
            Route::patch('/', [ChatController::class, 'update']);
            Route::get('messages', [ChatController::class, 'messages']);
            Route::post('messages', [ChatController::class, 'sendMessage']);
            Route::post('read', [ChatController::class, 'markAsRead']);

            Route::middleware('can:changeParticipants,chat')->group(function () {
                Route::post('participants', [ParticipantController::class, 'store']);
                Route::delete('participants', [ParticipantController::class, 'leave']);
                Route::delete('participants/{user}', [ParticipantController::class, 'destroy'])
                    ->where('user', '[0-9]+')
                    ->middleware('can:removeParticipant,chat,user');
            });
        });
    });
});
