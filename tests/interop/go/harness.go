// What the Go programs share: the way to the harness, the steps, and a try that is repeated.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	lifetime = 7200
	channel  = "token:access_token"
	keyspace = "__keyspace@0__:access_token"
)

// What must be read right now.
var token, ticket = os.Getenv("TOKEN"), os.Getenv("TICKET")

var address = os.Getenv("HOST") + ":" + os.Getenv("PORT")

var stdin = bufio.NewReader(os.Stdin)

func ask(request string) []string {
	fmt.Println(request)
	line, err := stdin.ReadString('\n')
	must(err)
	return strings.Fields(line)
}

// Has the token rotated; the answer is its generation.
func rotate() string {
	answer := ask("@rotate")
	token = answer[0]
	return answer[1]
}

func restart() { ask("@restart") }

func must(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(why ...interface{}) {
	fmt.Fprintln(os.Stderr, why...)
	os.Exit(1)
}

func same(got, wanted interface{}) {
	if got != wanted {
		fail("got", got, "instead of", wanted)
	}
}

func sensible(ttl, pttl int64) {
	if ttl <= 0 || ttl > lifetime || pttl-ttl*1000 > 2000 || ttl*1000-pttl > 2000 {
		fail("TTL", ttl, "PTTL", pttl)
	}
}

// Repeats attempt until it succeeds.
func until(attempt func() error) {
	var err error
	for tries := 0; tries < 200; tries++ {
		if err = attempt(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	fail(err)
}

func take(steps map[string]func()) {
	for _, step := range os.Args[1:] {
		steps[step]()
		fmt.Println("ok", step)
	}
}
