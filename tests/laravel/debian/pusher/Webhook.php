<?php

namespace Pusher;

class Webhook
{
    /** @param  object[]  $events */
    public function __construct(private int $timeMs, private array $events)
    {
    }

    public function get_time_ms(): int
    {
        return $this->timeMs;
    }

    /** @return object[] */
    public function get_events(): array
    {
        return $this->events;
    }
}
