// go-redis 5.
package main

import (
	"strings"
	"time"

	"gopkg.in/redis.v5"
)

var client = redis.NewClient(&redis.Options{Addr: address})

func text(reply *redis.StringCmd) string {
	must(reply.Err())
	return reply.Val()
}

func seconds(reply *redis.DurationCmd) int64 {
	must(reply.Err())
	return int64(reply.Val() / time.Second)
}

func read() {
	same(text(client.Get("access_token")), token)
	both, err := client.MGet("access_token", "ticket").Result()
	must(err)
	same(both[0], token)
	same(both[1], ticket)
}

func both(queue func(func(*redis.Pipeline) error) ([]redis.Cmder, error)) {
	var value *redis.StringCmd
	var ttl *redis.DurationCmd
	_, err := queue(func(commands *redis.Pipeline) error {
		value, ttl = commands.Get("access_token"), commands.TTL("access_token")
		return nil
	})
	must(err)
	same(text(value), token)
	sensible(seconds(ttl), seconds(ttl)*1000)
}

func refused() {
	err := client.Set("access_token", "x", 0).Err()
	if err == nil || !strings.HasPrefix(err.Error(), "READONLY ") {
		fail("SET:", err)
	}
	read()
}

func subscribe() {
	subscriber, err := client.Subscribe(channel, keyspace)
	must(err)
	defer subscriber.Close()
	wanted := map[string]string{}
	for subscribed, set, told := 0, false, false; !set || !told; {
		message, err := subscriber.ReceiveTimeout(10 * time.Second)
		must(err)
		switch message := message.(type) {
		case *redis.Subscription:
			if subscribed++; subscribed == 2 {
				wanted[channel] = rotate()
				wanted[keyspace] = "set"
			}
		case *redis.Message:
			right := message.Payload == wanted[message.Channel]
			told = told || right && message.Channel == channel
			set = set || right && message.Channel == keyspace
		}
	}
	read()
}

func main() {
	take(map[string]func(){
		"connect": func() { must(client.Ping().Err()) },
		"read":    read,
		"ttl": func() {
			pttl, err := client.PTTL("access_token").Result()
			must(err)
			sensible(seconds(client.TTL("access_token")), int64(pttl/time.Millisecond))
		},
		"pipeline":    func() { both(client.Pipelined) },
		"transaction": func() { both(client.TxPipelined) },
		"missing": func() {
			same(client.Get("nobody").Err(), redis.Nil)
			// It gives the seconds -2 as a duration.
			same(seconds(client.TTL("nobody")), int64(-2))
		},
		"refused": refused,
		"reconnect": func() {
			restart()
			until(func() error { return client.Ping().Err() })
			read()
		},
		"subscribe": subscribe,
	})
}
