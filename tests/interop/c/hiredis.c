/* hiredis: the synchronous interface. Wrong answers end the program with a line about it. */
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define CHANNEL "token:access_token"
#define KEYSPACE "__keyspace@0__:access_token"

static redisContext *client;
/* What must be read right now. */
static char token[1024], ticket[1024], generation[32];

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static redisContext *dial(void) {
    struct timeval patience = {10, 0};
    redisContext *context = redisConnect(getenv("HOST"), atoi(getenv("PORT")));
    CHECK(context && !context->err);
    CHECK(redisSetTimeout(context, patience) == REDIS_OK);
    return context;
}

/* The reply to a command, which must come. Replies are not freed: the program is short. */
static redisReply *ask(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(client, format, arguments);
    va_end(arguments);
    CHECK(reply);
    return reply;
}

static redisReply *next(redisContext *context) {
    void *reply = NULL;
    CHECK(redisGetReply(context, &reply) == REDIS_OK);
    return reply;
}

static int is(const redisReply *reply, const char *text) {
    return (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS) &&
           strcmp(reply->str, text) == 0;
}

static int sensible(const redisReply *reply, long long unit) {
    return reply->type == REDIS_REPLY_INTEGER && reply->integer > 0 && reply->integer <= 7200 * unit;
}

static void harness(const char *request, const char *format, ...) {
    char line[2048];
    puts(request);
    CHECK(fgets(line, sizeof line, stdin));
    va_list arguments;
    va_start(arguments, format);
    vsscanf(line, format, arguments);
    va_end(arguments);
}

static void connects(void) {
    CHECK(is(ask("PING"), "PONG"));
}

static void reads(void) {
    CHECK(is(ask("GET access_token"), token));
    redisReply *both = ask("MGET access_token ticket");
    CHECK(both->type == REDIS_REPLY_ARRAY && both->elements == 2);
    CHECK(is(both->element[0], token) && is(both->element[1], ticket));
}

static void ttl(void) {
    redisReply *seconds = ask("TTL access_token"), *milliseconds = ask("PTTL access_token");
    CHECK(sensible(seconds, 1) && sensible(milliseconds, 1000));
    CHECK(llabs(seconds->integer * 1000 - milliseconds->integer) < 2000);
}

static void pipeline(void) {
    redisAppendCommand(client, "GET access_token");
    redisAppendCommand(client, "TTL access_token");
    redisAppendCommand(client, "GET ticket");
    CHECK(is(next(client), token));
    CHECK(sensible(next(client), 1));
    CHECK(is(next(client), ticket));
}

static void transaction(void) {
    CHECK(is(ask("MULTI"), "OK"));
    CHECK(is(ask("GET access_token"), "QUEUED"));
    CHECK(is(ask("TTL access_token"), "QUEUED"));
    redisReply *both = ask("EXEC");
    CHECK(both->type == REDIS_REPLY_ARRAY && both->elements == 2);
    CHECK(is(both->element[0], token) && sensible(both->element[1], 1));
}

static void missing(void) {
    CHECK(ask("GET nobody")->type == REDIS_REPLY_NIL);
    CHECK(ask("TTL nobody")->integer == -2);
}

static void refused(void) {
    redisReply *reply = ask("SET access_token x");
    CHECK(reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "READONLY ", 9) == 0);
    reads();
}

static void reconnect(void) {
    harness("@restart", "");
    CHECK(redisCommand(client, "PING") == NULL);
    for (int tries = 0; redisReconnect(client) != REDIS_OK; tries++) {
        CHECK(tries < 100);
        usleep(100000);
    }
    reads();
}

static void subscribe(void) {
    redisContext *subscriber = dial();
    redisAppendCommand(subscriber, "SUBSCRIBE " CHANNEL " " KEYSPACE);
    for (int i = 0; i < 2; i++) {
        redisReply *confirmation = next(subscriber);
        CHECK(confirmation->type == REDIS_REPLY_ARRAY);
        CHECK(is(confirmation->element[0], "subscribe"));
    }
    harness("@rotate", "%1023s %31s", token, generation);
    int told = 0, set = 0;
    while (!told || !set) {
        redisReply *message = next(subscriber);
        CHECK(message->elements == 3 && is(message->element[0], "message"));
        told |= is(message->element[1], CHANNEL) && is(message->element[2], generation);
        set |= is(message->element[1], KEYSPACE) && is(message->element[2], "set");
    }
    reads();
}

static const struct {
    const char *name;
    void (*take)(void);
} steps[] = {
    {"connect", connects}, {"read", reads}, {"ttl", ttl}, {"pipeline", pipeline},
    {"transaction", transaction}, {"missing", missing}, {"refused", refused},
    {"reconnect", reconnect}, {"subscribe", subscribe},
};

int main(int count, char **names) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(token, sizeof token, "%s", getenv("TOKEN"));
    snprintf(ticket, sizeof ticket, "%s", getenv("TICKET"));
    client = dial();
    for (int i = 1; i < count; i++)
        for (size_t j = 0; j < sizeof steps / sizeof *steps; j++)
            if (strcmp(names[i], steps[j].name) == 0) {
                steps[j].take();
                printf("ok %s\n", names[i]);
            }
    return 0;
}
