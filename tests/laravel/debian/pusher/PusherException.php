<?php

namespace Pusher;

use RuntimeException;

class PusherException extends RuntimeException
{
}
