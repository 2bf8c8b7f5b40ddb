<?php

namespace Faker;

class Factory
{
    public static function create(): Generator
    {
        return new Generator;
    }
}
