#!/usr/bin/env bash
# Measures GET /wechat/token against nginx answering a constant body of the same length, side by
# side in one run: requests a second, and processor time of the server for each request. Everything
# stays on loopback; needs nginx, wrk and curl, and takes about a minute.
#
#   cargo build --release && benches/http.sh
#
# Settings, by environment: ROUNDS, SECONDS_EACH, CONNECTIONS; PORT, NGINX_PORT.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-4}
connections=${CONNECTIONS:-32}
port=${PORT:-18123}
nginx_port=${NGINX_PORT:-18124}
work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

# Waits until the body behind URL $1 holds $2; fails if process $3 ends or after ten seconds.
await_body() {
    local deadline=$((SECONDS + 10))
    until curl -fs --max-time 1 "$1" | grep -q "$2"; do
        kill -0 "$3" 2>/dev/null || { echo "the server ended:" >&2; cat "$work"/*.log >&2; exit 1; }
        ((SECONDS < deadline)) || { echo "no answer at $1" >&2; cat "$work"/*.log >&2; exit 1; }
        sleep 0.05
    done
}

target/release/wechat-token-server sandbox --lifetime 2h --http "127.0.0.1:$port" \
    --resp 127.0.0.1:0 --upstream 127.0.0.1:0 >"$work/server.log" 2>&1 &
server_pid=$!
pids+=("$server_pid")
# The sandbox prints the line to copy, with its secret, when it serves.
until ours=$(grep -o "http://[^']*/wechat/token?type=access_token[^']*" "$work/server.log"); do
    kill -0 "$server_pid" || { cat "$work/server.log" >&2; exit 1; }
    sleep 0.05
done
theirs="http://127.0.0.1:$nginx_port/${ours#http://*/}"
await_body "$ours" expires_in "$server_pid"
body=$(curl -fs "$ours")

cat >"$work/nginx.conf" <<CONF
worker_processes 2;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log warn;
events { worker_connections 1024; }
http {
    access_log off;
    server_tokens off;
    default_type "application/json; charset=UTF-8";
    keepalive_requests 100000000;
    client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
    uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
    server {
        listen 127.0.0.1:$nginx_port;
        location / { return 200 '$body'; }
    }
}
CONF
nginx -p "$work" -c "$work/nginx.conf" -e "$work/nginx.log" &
nginx_pid=$!
pids+=("$nginx_pid")
await_body "$theirs" expires_in "$nginx_pid"

# Processor time of a process and its children so far, in clock ticks.
ticks() {
    local pid total=0
    for pid in "$1" $(pgrep -P "$1" || true); do
        # utime and stime are fields 14 and 15; the name in field 2 is in brackets and holds no space.
        total=$((total + $(awk '{print $14 + $15}' "/proc/$pid/stat")))
    done
    echo "$total"
}

# Asks URL $1 of process $2 for $3 seconds; prints "requests/s microseconds-of-processor/request".
measure() {
    local before after
    before=$(ticks "$2")
    timeout $(($3 + 20)) wrk -t2 -c"$connections" -d"$3s" "$1" >"$work/wrk.out"
    after=$(ticks "$2")
    if grep -q 'Non-2xx\|Socket errors' "$work/wrk.out"; then cat "$work/wrk.out" >&2; exit 1; fi
    awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
        / requests in / { requests = $1 }
        /^Requests\/sec/ { rate = $2 }
        END { printf "%.0f %.2f\n", rate, ticks / hz * 1e6 / requests }' "$work/wrk.out"
}

median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'; }

answer_bytes() { curl -fsi "$1" | wc -c; }
echo "answers: ours $(answer_bytes "$ours") bytes, nginx $(answer_bytes "$theirs") bytes," \
    "body ${#body} bytes; $connections connections, ${seconds}s each"
measure "$ours" "$server_pid" 1 >/dev/null
measure "$theirs" "$nginx_pid" 1 >/dev/null
for ((round = 1; round <= rounds; round++)); do
    read -r our_rate our_time < <(measure "$ours" "$server_pid" "$seconds")
    read -r their_rate their_time < <(measure "$theirs" "$nginx_pid" "$seconds")
    echo "round $round: ours $our_rate/s, $our_time us each; nginx $their_rate/s, $their_time us each"
    awk "BEGIN { print $our_rate / $their_rate }" >>"$work/rates"
    awk "BEGIN { print $our_time / $their_time }" >>"$work/times"
done
echo "median ratio to nginx: throughput $(median <"$work/rates"), processor time per request $(median <"$work/times")"
