<?php

namespace Pusher;

/**
 * Stands for the class of pusher/pusher-php-server where that is not installed: what
 * Laravel's broadcaster and the chat call of it, with the signatures of Pusher's documentation.
 */
class Pusher
{
    /** @param  array{host: string, port: int|string, scheme: string, timeout?: int}  $options */
    public function __construct(
        private string $key,
        private string $secret,
        private string $appId,
        private array $options,
    ) {
    }

    /** @throws ApiErrorException if the server cannot be reached or refuses */
    public function trigger(array $channels, string $event, mixed $data, array $params = []): object
    {
        $body = json_encode([
            'name' => $event,
            'data' => json_encode($data, JSON_THROW_ON_ERROR),
            'channels' => array_values($channels),
        ] + $params, JSON_THROW_ON_ERROR);

        return $this->post('/events', $body);
    }

    public function socket_auth(string $channel, string $socketId): string
    {
        return json_encode(['auth' => $this->signed("{$socketId}:{$channel}")]);
    }

    public function presence_auth(string $channel, string $socketId, mixed $userId, mixed $userInfo): string
    {
        $member = json_encode(['user_id' => (string) $userId, 'user_info' => $userInfo]);

        return json_encode([
            'auth' => $this->signed("{$socketId}:{$channel}:{$member}"),
            'channel_data' => $member,
        ]);
    }

    /**
     * @param  string  $path  what comes after `/apps/{id}`
     *
     * @throws ApiErrorException if the server cannot be reached or refuses
     */
    public function post(string $path, string $body): object
    {
        $path = "/apps/{$this->appId}{$path}";
        $query = http_build_query([
            'auth_key' => $this->key,
            'auth_timestamp' => time(),
            'auth_version' => '1.0',
            'body_md5' => md5($body),
        ]);
        $signature = hash_hmac('sha256', "POST\n{$path}\n{$query}", $this->secret);
        ['scheme' => $scheme, 'host' => $host, 'port' => $port] = $this->options;

        $request = curl_init("{$scheme}://{$host}:{$port}{$path}?{$query}&auth_signature={$signature}");
        curl_setopt_array($request, [
            CURLOPT_POSTFIELDS => $body,
            CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => $this->options['timeout'] ?? 30,
        ]);
        $answer = curl_exec($request);
        if ($answer === false) {
            throw new ApiErrorException(sprintf('cURL error %d: %s', curl_errno($request), curl_error($request)));
        }
        $status = curl_getinfo($request, CURLINFO_RESPONSE_CODE);
        if ($status !== 200) {
            throw new ApiErrorException($answer, $status);
        }

        return json_decode($answer, flags: JSON_THROW_ON_ERROR);
    }

    /**
     * @param  array{'X-Pusher-Key': string, 'X-Pusher-Signature': string}  $headers
     *
     * @throws PusherException if they do not sign the body
     */
    public function webhook(array $headers, string $body): Webhook
    {
        $signature = hash_hmac('sha256', $body, $this->secret);
        if ($headers['X-Pusher-Key'] !== $this->key || ! hash_equals($signature, $headers['X-Pusher-Signature'])) {
            throw new PusherException("Received WebHook with invalid signature: got {$headers['X-Pusher-Signature']}.");
        }
        $request = json_decode($body, flags: JSON_THROW_ON_ERROR);

        return new Webhook($request->time_ms, $request->events);
    }

    private function signed(string $text): string
    {
        return $this->key.':'.hash_hmac('sha256', $text, $this->secret);
    }
}
