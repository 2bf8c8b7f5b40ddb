<?php

namespace App\Rules;

use Closure;

class Text
{
    /**
     * Text that every database stores and JSON can carry. A form can bring any bytes.
     */
    public static function valid(): Closure
    {
        return function (string $attribute, string $value, Closure $fail) {
            if (! mb_check_encoding($value, 'UTF-8') || str_contains($value, "\0")) {
                $fail("The {$attribute} must be valid text.");
            }
        };
    }
}
