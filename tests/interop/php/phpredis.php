<?php
// phpredis, the extension.

require __DIR__ . '/harness.php';

function dial(): Redis
{
    $client = new Redis();
    if (CA) {
        $client->connect('tls://' . HOST, PORT, 0, null, 0, 0, ['stream' => ['cafile' => CA]]);
    } else {
        $client->connect(HOST, PORT);
    }
    return $client;
}

$client = dial();

$read = function () use ($client, &$tokens) {
    same($client->get('access_token'), $tokens['access_token']);
    same($client->mGet(['access_token', 'ticket']), array_values($tokens));
};
$both = function (Redis $commands) use (&$tokens) {
    [$value, $ttl] = $commands->get('access_token')->ttl('access_token')->exec();
    same($value, $tokens['access_token']);
    sensible($ttl, $ttl * 1000);
};

take([
    'connect' => fn () => same($client->ping(), true),
    'read' => $read,
    'ttl' => fn () => sensible($client->ttl('access_token'), $client->pttl('access_token')),
    'pipeline' => fn () => $both($client->multi(Redis::PIPELINE)),
    'transaction' => fn () => $both($client->multi()),
    'missing' => function () use ($client) {
        same($client->get('nobody'), false);
        same($client->ttl('nobody'), -2);
    },
    'refused' => function () use ($client, $read) {
        // It throws for some errors and answers false for others; the error can be asked for.
        try {
            same($client->set('access_token', 'x'), false);
            $error = $client->getLastError();
        } catch (RedisException $exception) {
            $error = $exception->getMessage();
        }
        same(strtok($error, ' '), 'READONLY');
        $read();
    },
    'reconnect' => function () use ($client, $read) {
        restart();
        until(fn () => @$client->ping());
        $read();
    },
    'subscribe' => function () use ($read, &$tokens) {
        // Its subscribe() blocks and does not say when it is subscribed, so a child looks for that.
        if (pcntl_fork() == 0) {
            $watcher = dial();
            until(fn () => same((int) $watcher->pubsub('numsub', [KEYSPACE])[KEYSPACE], 1));
            echo "@rotate\n";
            // Without the destructors of what belongs to its parent.
            posix_kill(posix_getpid(), SIGKILL);
        }
        $subscriber = dial();
        $subscriber->setOption(Redis::OPT_READ_TIMEOUT, 10);
        $inbox = null;
        $hear = function ($subscriber, $channel, $message) use (&$inbox, &$tokens) {
            if (!$inbox) {
                $inbox = new Inbox();
                [$tokens['access_token'], $generation] = explode(' ', trim(fgets(STDIN)));
                $inbox->wants($generation);
            }
            if ($inbox->put($channel, $message)) {
                // The way out of subscribe(), which then misses its connection.
                $subscriber->close();
            }
        };
        try {
            $subscriber->subscribe([CHANNEL, KEYSPACE], $hear);
            throw new Exception('subscribe() ended early');
        } catch (RedisException $closed) {
            same($inbox?->complete(), true);
        }
        $read();
    },
]);
