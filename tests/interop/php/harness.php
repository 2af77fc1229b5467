<?php
// What the PHP scripts share: the way to the harness, the steps, and a try that is repeated.

const LIFETIME = 7200;
const CHANNEL = 'token:access_token';
const KEYSPACE = '__keyspace@0__:access_token';
define('HOST', getenv('HOST'));
define('PORT', (int) getenv('PORT'));
// The certificate to trust, where the server speaks TLS.
define('CA', getenv('CA'));

// What must be read right now.
$tokens = ['access_token' => getenv('TOKEN'), 'ticket' => getenv('TICKET')];

set_error_handler(function (int $level, string $message, string $file, int $line) {
    // What is silenced with @ is expected.
    return error_reporting() & $level ? throw new ErrorException($message, 0, $level, $file, $line) : true;
});
set_exception_handler(function (Throwable $error) {
    fwrite(STDERR, "$error\n" . strtr($error->getMessage(), "\n", ' ') . "\n");
    exit(1);
});

function ask(string $request): array
{
    echo "$request\n";
    return explode(' ', trim(fgets(STDIN)));
}

/** Has the token rotated; the answer is its generation. */
function rotate(): string
{
    global $tokens;
    [$tokens['access_token'], $generation] = ask('@rotate');
    return $generation;
}

function restart(): void
{
    ask('@restart');
}

function same($got, $wanted): void
{
    if ($got !== $wanted) {
        throw new Exception('got ' . json_encode($got) . ' instead of ' . json_encode($wanted));
    }
}

function sensible(int $ttl, int $pttl): void
{
    if ($ttl <= 0 || $ttl > LIFETIME || abs($pttl / 1000 - $ttl) >= 2) {
        throw new Exception("TTL $ttl, PTTL $pttl");
    }
}

/** Repeats the attempt until nothing is thrown. */
function until(callable $attempt): void
{
    for ($tries = 1; ; $tries++) {
        try {
            $attempt();
            return;
        } catch (Exception $error) {
            if ($tries == 200) {
                throw $error;
            }
            usleep(50000);
        }
    }
}

/** Messages of both channels, as they come, until each has brought what is wanted. */
class Inbox
{
    private array $wanted = [];

    public function wants(string $generation): void
    {
        $this->wanted = [CHANNEL => $generation, KEYSPACE => 'set'];
    }

    /** Says whether that was all. */
    public function put(string $channel, string $message): bool
    {
        if (($this->wanted[$channel] ?? null) === $message) {
            unset($this->wanted[$channel]);
        }
        return $this->complete();
    }

    public function complete(): bool
    {
        return !$this->wanted;
    }
}

function take(array $steps): void
{
    global $argv;
    foreach (array_slice($argv, 1) as $step) {
        $steps[$step]();
        echo "ok $step\n";
    }
}
