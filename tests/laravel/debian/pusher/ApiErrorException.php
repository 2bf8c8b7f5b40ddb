<?php

namespace Pusher;

class ApiErrorException extends PusherException
{
}
