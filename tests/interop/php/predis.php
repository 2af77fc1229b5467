<?php
// predis, in plain PHP.

require __DIR__ . '/harness.php';
// Version 1 says of its own interfaces what PHP 8 deprecates.
error_reporting(E_ALL & ~E_DEPRECATED);
require 'Predis/autoload.php';

function dial(): Predis\Client
{
    $tls = CA ? ['scheme' => 'tls', 'ssl' => ['cafile' => CA]] : [];
    return new Predis\Client($tls + ['host' => HOST, 'port' => PORT, 'read_write_timeout' => 10]);
}

$client = dial();

$read = function () use ($client, &$tokens) {
    same($client->get('access_token'), $tokens['access_token']);
    same($client->mget('access_token', 'ticket'), array_values($tokens));
};
$queue = fn ($commands) => $commands->get('access_token')->ttl('access_token');
$both = function (array $replies) use (&$tokens) {
    same($replies[0], $tokens['access_token']);
    sensible($replies[1], $replies[1] * 1000);
};

take([
    'connect' => fn () => same((string) $client->ping(), 'PONG'),
    'read' => $read,
    'ttl' => fn () => sensible($client->ttl('access_token'), $client->pttl('access_token')),
    'pipeline' => fn () => $both($client->pipeline(fn ($commands) => $queue($commands))),
    'transaction' => fn () => $both($client->transaction(fn ($commands) => $queue($commands))),
    'missing' => function () use ($client) {
        same($client->get('nobody'), null);
        same($client->ttl('nobody'), -2);
    },
    'refused' => function () use ($client, $read) {
        try {
            $client->set('access_token', 'x');
            throw new Exception('SET was accepted');
        } catch (Predis\Response\ServerException $error) {
            same($error->getErrorType(), 'READONLY');
        }
        $read();
    },
    'reconnect' => function () use ($client, $read) {
        restart();
        until(fn () => $client->ping());
        $read();
    },
    'subscribe' => function () use ($read) {
        $subscription = dial()->pubSubLoop(['subscribe' => [CHANNEL, KEYSPACE]]);
        $inbox = new Inbox();
        foreach ($subscription as $event) {
            if ($event->kind == 'subscribe' && $event->payload == 2) {
                $inbox->wants(rotate());
            } elseif ($event->kind == 'message' && $inbox->put($event->channel, $event->payload)) {
                break;
            }
        }
        $read();
    },
]);
