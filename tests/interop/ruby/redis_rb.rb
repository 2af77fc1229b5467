# redis-rb.
require "redis"
require "set"

$stdout.sync = true
HOST, PORT = ENV["HOST"], ENV["PORT"].to_i
LIFETIME = 7200
CHANNEL, KEYSPACE = "token:access_token", "__keyspace@0__:access_token"

# What must be read right now.
$token, $ticket = ENV["TOKEN"], ENV["TICKET"]

$client = Redis.new(host: HOST, port: PORT)

def ask(request)
  puts request
  $stdin.gets.split
end

def same(got, wanted)
  raise "got #{got.inspect} instead of #{wanted.inspect}" unless got == wanted
end

def sensible(ttl, pttl)
  right = ttl.positive? && ttl <= LIFETIME && (pttl / 1000.0 - ttl).abs < 2
  raise "TTL #{ttl}, PTTL #{pttl}" unless right
end

def both(replies)
  same(replies[0], $token)
  sensible(replies[1], replies[1] * 1000)
end

def queue(commands)
  commands.get("access_token")
  commands.ttl("access_token")
end

def read
  same($client.get("access_token"), $token)
  same($client.mget("access_token", "ticket"), [$token, $ticket])
end

def refused
  $client.set("access_token", "x")
  raise "SET was accepted"
rescue Redis::CommandError => error
  same(error.message.split.first, "READONLY")
  read
end

def reconnect
  ask("@restart")
  tries = 0
  begin
    $client.ping
  rescue Redis::BaseConnectionError
    raise if (tries += 1) == 200
    sleep 0.05
    retry
  end
  read
end

def subscribe
  wanted = nil
  subscriber = Redis.new(host: HOST, port: PORT)
  subscriber.subscribe_with_timeout(10, CHANNEL, KEYSPACE) do |on|
    on.subscribe do |_, subscriptions|
      next unless subscriptions == 2
      $token, generation = ask("@rotate")
      wanted = Set[[CHANNEL, generation], [KEYSPACE, "set"]]
    end
    on.message do |channel, message|
      wanted.delete([channel, message])
      subscriber.unsubscribe if wanted.empty?
    end
  end
  read
end

STEPS = {
  "connect" => -> { same($client.ping, "PONG") },
  "read" => -> { read },
  "ttl" => -> { sensible($client.ttl("access_token"), $client.pttl("access_token")) },
  "pipeline" => -> { both($client.pipelined { |commands| queue(commands) }) },
  "transaction" => -> { both($client.multi { |commands| queue(commands) }) },
  "missing" => lambda {
    same($client.get("nobody"), nil)
    same($client.ttl("nobody"), -2)
  },
  "refused" => -> { refused },
  "reconnect" => -> { reconnect },
  "subscribe" => -> { subscribe },
}.freeze

begin
  ARGV.each do |step|
    STEPS.fetch(step).call
    puts "ok #{step}"
  end
rescue StandardError => error
  warn error.full_message, "#{error.class}: #{error.message.tr("\n", " ")}"
  exit 1
end
