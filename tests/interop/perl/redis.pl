# Redis.pm.
use strict;
use warnings;
use Redis;
use Time::HiRes 'sleep';

$| = 1;
my $lifetime = 7200;
my ($channel, $keyspace) = ('token:access_token', '__keyspace@0__:access_token');

# What must be read right now.
my ($token, $ticket) = @ENV{qw(TOKEN TICKET)};

sub dial { Redis->new(server => "$ENV{HOST}:$ENV{PORT}", @_) }

# `reconnect` is for how many seconds it tries, `every` the microseconds between two tries.
my $client = dial(reconnect => 10, every => 50_000);

sub ask {
    print "$_[0]\n";
    return split ' ', scalar <STDIN>;
}

sub same {
    my ($got, $wanted) = map { $_ // 'undef' } @_;
    die "got $got instead of $wanted\n" if $got ne $wanted;
}

sub sensible {
    my ($ttl, $pttl) = @_;
    die "TTL $ttl, PTTL $pttl\n"
        if $ttl <= 0 || $ttl > $lifetime || abs($pttl / 1000 - $ttl) >= 2;
}

sub both {
    my ($value, $ttl) = @_;
    same($value, $token);
    sensible($ttl, $ttl * 1000);
}

sub read_both {
    same($client->get('access_token'), $token);
    same(join(' ', $client->mget('access_token', 'ticket')), "$token $ticket");
}

my %steps = (
    connect => sub { same($client->ping, 'PONG') },
    read => \&read_both,
    ttl => sub { sensible($client->ttl('access_token'), $client->pttl('access_token')) },
    pipeline => sub {
        my @replies;
        # A command with a callback is sent at once, and waited for below.
        $client->get('access_token', sub { $replies[0] = $_[0] });
        $client->ttl('access_token', sub { $replies[1] = $_[0] });
        $client->wait_all_responses;
        both(@replies);
    },
    transaction => sub {
        $client->multi;
        $client->get('access_token');
        $client->ttl('access_token');
        both($client->exec);
    },
    missing => sub {
        same($client->get('nobody'), undef);
        same($client->ttl('nobody'), -2);
    },
    refused => sub {
        die "SET was accepted\n" if eval { $client->set('access_token', 'x'); 1 };
        die $@ unless $@ =~ /READONLY /;
        read_both();
    },
    reconnect => sub {
        ask('@restart');
        read_both();
    },
    subscribe => sub {
        my $subscriber = dial();
        my %wanted;
        $subscriber->subscribe($channel, $keyspace, sub {
            my ($message, $topic) = @_;
            delete $wanted{$topic} if ($wanted{$topic} // '') eq $message;
        });
        ($token, my $generation) = ask('@rotate');
        %wanted = ($channel => $generation, $keyspace => 'set');
        # It returns once nothing has come for so many seconds.
        for (1 .. 100) { $subscriber->wait_for_messages(0.1) if %wanted }
        die "not told: @{[%wanted]}\n" if %wanted;
        read_both();
    },
);

for my $step (@ARGV) {
    $steps{$step}->();
    print "ok $step\n";
}
