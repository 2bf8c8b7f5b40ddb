<?php

// php sql.php STATEMENT: runs it in the database of the application in the working
// directory and prints the rows as JSON.

use Illuminate\Contracts\Console\Kernel;
use Illuminate\Support\Facades\DB;

require getcwd().'/vendor/autoload.php';

$app = require getcwd().'/bootstrap/app.php';
$app->make(Kernel::class)->bootstrap();

$statement = $argv[1];
echo json_encode(str_starts_with($statement, 'select') ? DB::select($statement) : DB::affectingStatement($statement));
