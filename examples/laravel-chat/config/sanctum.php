<?php

return [
    // Tokens only: no guard with a session is asked first.
    'guard' => [],

    // Minutes. Every token has a date of its own besides; see AuthController.
    'expiration' => null,
];
