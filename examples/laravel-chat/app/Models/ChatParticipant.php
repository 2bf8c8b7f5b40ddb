<?php

namespace App\Models;

use Illuminate\Database\Eloquent\Relations\Pivot;

class ChatParticipant extends Pivot
{
    protected $table = 'inmo_chat_participants';

    // To the microsecond, as the messages: two of them in one second can be told apart.
    protected $dateFormat = 'Y-m-d H:i:s.u';

    protected $casts = [
        'last_read_at' => 'datetime',
        'is_muted' => 'boolean',
    ];
}
