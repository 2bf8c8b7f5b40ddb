<?php

// The rules that the chat uses.
return [
    'array' => 'The :attribute must be an array.',
    'boolean' => 'The :attribute field must be true or false.',
    'distinct' => 'The :attribute field has a duplicate value.',
    'email' => 'The :attribute must be a valid email address.',
    'enum' => 'The selected :attribute is invalid.',
    'exists' => 'The selected :attribute is invalid.',
    'integer' => 'The :attribute must be an integer.',
    'max' => [
        'array' => 'The :attribute must not have more than :max items.',
        'string' => 'The :attribute must not be greater than :max characters.',
    ],
    'min' => ['numeric' => 'The :attribute must be at least :min.'],
    'not_in' => 'The selected :attribute is invalid.',
    'required' => 'The :attribute field is required.',
    'starts_with' => 'The :attribute must start with one of the following: :values.',
    'string' => 'The :attribute must be a string.',
    'url' => 'The :attribute must be a valid URL.',
];
