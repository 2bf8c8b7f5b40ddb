<?php

namespace Illuminate\Http\Middleware;

use Closure;
use Illuminate\Http\Request;
use Symfony\Component\HttpFoundation\Response;

/** Permits every origin what config/cors.php names, which in the chat is every origin. */
class HandleCors
{
    public function handle(Request $request, Closure $next): Response
    {
        if (! $request->is(config('cors.paths'))) {
            return $next($request);
        }

        $isPreflight = $request->isMethod('OPTIONS') && $request->headers->has('Access-Control-Request-Method');
        $response = $isPreflight ? response()->noContent() : $next($request);
        $response->headers->set('Access-Control-Allow-Origin', config('cors.allowed_origins')[0]);
        if ($isPreflight) {
            $response->headers->set('Access-Control-Allow-Methods', $request->header('Access-Control-Request-Method'));
            $response->headers->set('Access-Control-Allow-Headers', $request->header('Access-Control-Request-Headers'));
        }

        return $response;
    }
}
