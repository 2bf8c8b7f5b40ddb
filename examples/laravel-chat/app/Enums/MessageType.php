<?php

namespace App\Enums;

enum MessageType: string
{
    case Text = 'text';
    /** The content is the address of the image. */
    case Image = 'image';
    /** The content is the address of the file. */
    case File = 'file';
}
