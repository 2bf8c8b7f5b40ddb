<?php

namespace App\Events\Concerns;

/** While the WebSocket server restarts a job fails; it is tried again. */
trait Retried
{
    public int $tries = 3;

    /** Seconds before each further try. */
    public array $backoff = [2, 10];
}
