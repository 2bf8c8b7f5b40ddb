<?php

namespace Pusher;

use RuntimeException;

class ApiErrorException extends RuntimeException
{
}
