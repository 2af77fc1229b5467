#!/usr/bin/env bash
# Measures `GET access_token` over the Redis protocol against redis-server holding the same value,
# side by side in one run, with 1, 16 and 64 requests in the pipeline: requests a second, and
# processor time of the server for each request. Everything stays on loopback; needs redis-server and
# redis-tools, and takes about three minutes.
#
#   cargo build --release && benches/resp.sh
#
# The load comes from two threads of redis-benchmark: with one, that is what sets the pace at depth 16,
# and the faster server sleeps in between.
#
# Settings, by environment: ROUNDS, SECONDS_EACH, CONNECTIONS, DEPTHS; THREADS (of redis-benchmark;
# 0: its one thread without `--threads`); PORT, REDIS_PORT; BINARY. Ends with 1 if a requirement is
# not met; those are for the settings as they are here, on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-7}
seconds=${SECONDS_EACH:-3}
connections=${CONNECTIONS:-50}
depths=${DEPTHS:-1 16 64}
threads=${THREADS:-2}
port=${PORT:-18125}
redis_port=${REDIS_PORT:-18126}
binary=${BINARY:-target/release/wechat-token-server}
# By depth, as ratios of ours to redis-server's: throughput at least, processor time at most.
declare -A least_rate=([1]=0.97 [16]=1.15 [64]=1.50)
declare -A most_time=([1]=0.95 [16]=0.75 [64]=0.60)

work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

die() {
    echo "$*" >&2
    tail -n 20 "$work"/*.log >&2
    exit 1
}

# Asks port $1 with redis-cli; a refused connection is an empty answer.
ask() {
    local at=$1
    shift
    timeout 5 redis-cli -h 127.0.0.1 -p "$at" "$@" 2>/dev/null || true
}

# Waits until process $2 serves $3 at port $1; ten seconds at most.
await() {
    local deadline=$((SECONDS + 10))
    until [ "$(ask "$1" EXISTS "$3")" = 1 ]; do
        kill -0 "$2" 2>/dev/null || die "a server ended"
        ((SECONDS < deadline)) || die "no $3 at port $1"
        sleep 0.05
    done
}

for taken in "$port" "$redis_port"; do
    [ -z "$(ask "$taken" PING)" ] || die "somebody answers at port $taken already"
done
"$binary" sandbox --lifetime 2h --resp "127.0.0.1:$port" --http 127.0.0.1:0 \
    --upstream 127.0.0.1:0 >"$work/server.log" 2>&1 &
our_pid=$!
pids+=("$our_pid")
# One thread for commands and no persistence: what a Redis that keeps a token has.
redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --appendonly no --dir "$work" \
    >"$work/redis.log" 2>&1 &
redis_pid=$!
pids+=("$redis_pid")
await "$port" "$our_pid" access_token
value=$(ask "$port" GET access_token)
until [ "$(ask "$redis_port" SET access_token "$value")" = OK ]; do
    kill -0 "$redis_pid" 2>/dev/null || die "redis-server ended"
    sleep 0.05
done
[ "$(ask "$redis_port" GET access_token)" = "$value" ] || die "the two answer differently"

# Processor time of a process so far, all its threads, in clock ticks.
ticks() {
    # utime and stime are fields 14 and 15; the name in field 2 is in brackets and holds no space.
    awk '{ print $14 + $15 }' "/proc/$1/stat"
}

# Sends $4 requests in pipelines of $3 to port $1 of process $2; prints "requests/s
# microseconds-of-processor/request".
measure() {
    local before after options=()
    ((threads == 0)) || options=(--threads "$threads")
    before=$(ticks "$2")
    timeout $((seconds * 20 + 60)) redis-benchmark -h 127.0.0.1 -p "$1" -c "$connections" -P "$3" -n "$4" \
        "${options[@]}" --csv GET access_token >"$work/benchmark.csv" 2>"$work/benchmark.log" </dev/null ||
        die "redis-benchmark failed"
    after=$(ticks "$2")
    # The last line is "name","requests a second",…
    tail -n 1 "$work/benchmark.csv" | awk -F '"' -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" \
        -v requests="$4" '$4 > 0 { printf "%.0f %.3f\n", $4, ticks / hz * 1e6 / requests; ok = 1 }
        END { exit !ok }' || die "redis-benchmark said nothing"
}

ours() { measure "$port" "$our_pid" "$1" "$2"; }
redis() { measure "$redis_port" "$redis_pid" "$1" "$2"; }
ratio() { awk "BEGIN { printf \"%.4f\n\", $1 / $2 }"; }
median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.3f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

missed=0
# Prints a requirement: its name, our figure, theirs, their ratio $4, "least" or "most", the limit.
judge() {
    local met=yes limit=${6:-}
    [ -n "$limit" ] || { printf '  %-34s %9s %9s %7s\n' "$1" "$2" "$3" "$4"; return; }
    if [ "$5" = least ]; then
        awk "BEGIN { exit !($4 >= $limit) }" || met=NO
    else
        awk "BEGIN { exit !($4 <= $limit) }" || met=NO
    fi
    [ "$met" = yes ] || missed=1
    printf '  %-34s %9s %9s %7s   at %s %s: %s\n' "$1" "$2" "$3" "$4" "$5" "$limit" "$met"
}

generator="one thread"
((threads == 0)) || generator="--threads $threads"
echo "GET of ${#value} bytes, $connections connections, redis-benchmark with $generator," \
    "$rounds rounds of ${seconds}s each; $(nproc) processors; load average $(cut -d' ' -f1-3 /proc/loadavg)"
redis-server --version | cut -d' ' -f1-3
for depth in $depths; do
    # So many requests that redis-server takes $seconds; the same number for both. It warms up, too.
    read -r rate _ < <(redis "$depth" 100000)
    read -r _ < <(ours "$depth" 100000)
    requests=$((rate * seconds))
    for ((round = 1; round <= rounds; round++)); do
        # Who goes first takes turns: a machine that slows down slows both.
        if ((round % 2)); then
            read -r our_rate our_time < <(ours "$depth" "$requests")
            read -r redis_rate redis_time < <(redis "$depth" "$requests")
        else
            read -r redis_rate redis_time < <(redis "$depth" "$requests")
            read -r our_rate our_time < <(ours "$depth" "$requests")
        fi
        echo "depth $depth, round $round: ours $our_rate/s, $our_time us each;" \
            "redis $redis_rate/s, $redis_time us each"
        echo "$our_rate" >>"$work/$depth.our_rate"
        echo "$our_time" >>"$work/$depth.our_time"
        echo "$redis_rate" >>"$work/$depth.redis_rate"
        echo "$redis_time" >>"$work/$depth.redis_time"
        ratio "$our_rate" "$redis_rate" >>"$work/$depth.rates"
        ratio "$our_time" "$redis_time" >>"$work/$depth.times"
    done
done
echo
echo "medians                                   ours     redis   ratio   (the ratio is the median of the rounds')"
for depth in $depths; do
    judge "depth $depth: requests/s" "$(median <"$work/$depth.our_rate" | cut -d. -f1)" \
        "$(median <"$work/$depth.redis_rate" | cut -d. -f1)" "$(median <"$work/$depth.rates")" \
        least "${least_rate[$depth]:-}"
    judge "depth $depth: processor us/request" "$(median <"$work/$depth.our_time")" \
        "$(median <"$work/$depth.redis_time")" "$(median <"$work/$depth.times")" \
        most "${most_time[$depth]:-}"
done
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
exit "$missed"
