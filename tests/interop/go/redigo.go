// redigo, with a pool.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"

	"github.com/gomodule/redigo/redis"
)

func dial() (redis.Conn, error) {
	// The certificate to trust, where the server speaks TLS.
	file := os.Getenv("CA")
	if file == "" {
		return redis.Dial("tcp", address)
	}
	pem, err := os.ReadFile(file)
	must(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	return redis.Dial("tcp", address, redis.DialUseTLS(true),
		redis.DialTLSConfig(&tls.Config{RootCAs: trusted}))
}

var pool = &redis.Pool{
	MaxIdle: 2,
	Dial:    dial,
}

func do(command string, arguments ...interface{}) interface{} {
	conn := pool.Get()
	defer conn.Close()
	reply, err := conn.Do(command, arguments...)
	must(err)
	return reply
}

func text(reply interface{}) string {
	text, err := redis.String(reply, nil)
	must(err)
	return text
}

func read() {
	same(text(do("GET", "access_token")), token)
	both, err := redis.Strings(do("MGET", "access_token", "ticket"), nil)
	must(err)
	same(both[0], token)
	same(both[1], ticket)
}

func pipeline() {
	conn := pool.Get()
	defer conn.Close()
	must(conn.Send("GET", "access_token"))
	must(conn.Send("TTL", "access_token"))
	must(conn.Flush())
	value, err := redis.String(conn.Receive())
	must(err)
	same(value, token)
	ttl, err := redis.Int64(conn.Receive())
	must(err)
	sensible(ttl, ttl*1000)
}

func transaction() {
	conn := pool.Get()
	defer conn.Close()
	must(conn.Send("MULTI"))
	must(conn.Send("GET", "access_token"))
	must(conn.Send("TTL", "access_token"))
	values, err := redis.Values(conn.Do("EXEC"))
	must(err)
	same(text(values[0]), token)
	sensible(values[1].(int64), values[1].(int64)*1000)
}

func refused() {
	conn := pool.Get()
	defer conn.Close()
	_, err := conn.Do("SET", "access_token", "x")
	if err == nil || !strings.HasPrefix(err.Error(), "READONLY ") {
		fail("SET:", err)
	}
	same(conn.Err(), nil)
	read()
}

func reconnect() {
	restart()
	until(func() error {
		conn := pool.Get()
		defer conn.Close()
		_, err := conn.Do("PING")
		return err
	})
	read()
}

func subscribe() {
	subscriber := redis.PubSubConn{Conn: pool.Get()}
	defer subscriber.Close()
	must(subscriber.Subscribe(channel, keyspace))
	wanted := map[string]string{}
	for subscribed, set, told := 0, false, false; !set || !told; {
		switch message := subscriber.Receive().(type) {
		case error:
			fail(message)
		case redis.Subscription:
			if subscribed++; subscribed == 2 {
				wanted[channel] = rotate()
				wanted[keyspace] = "set"
			}
		case redis.Message:
			right := string(message.Data) == wanted[message.Channel]
			told = told || right && message.Channel == channel
			set = set || right && message.Channel == keyspace
		}
	}
	read()
}

func main() {
	take(map[string]func(){
		"connect": func() { same(text(do("PING")), "PONG") },
		"read":    read,
		"ttl": func() {
			sensible(do("TTL", "access_token").(int64), do("PTTL", "access_token").(int64))
		},
		"pipeline":    pipeline,
		"transaction": transaction,
		"missing": func() {
			same(do("GET", "nobody"), nil)
			same(do("TTL", "nobody"), int64(-2))
		},
		"refused":   refused,
		"reconnect": reconnect,
		"subscribe": subscribe,
	})
}
