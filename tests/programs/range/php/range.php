<?php
// The range's PHP script, for php-fpm behind a web server: /plain and
// /NAME/BYTES, where NAME says how a request comes to hold BYTES at once. PHP gives
// all memory of a request back at its end; /extent has how far PHP itself says that
// its heap extended for a request without any. A block is a string. PostgreSQL is
// left out, as its client library allocates outside PHP's heap; Redis at REDIS_PORT
// is spoken in two lines over a connection that the process keeps. Deliberately not
// here: counts, which php-fpm's access log has, and anything that knows memtrace.

function block(int $bytes): string {
    return str_repeat('x', $bytes);
}

/** A piece, what happens between, and another. */
function around(int $bytes, callable $between): int {
    $before = intdiv($bytes, 4);
    $first = block($before);
    $between();
    $second = block($bytes - $before);
    return strlen($first) + strlen($second);
}

function increment(): void {
    $socket = pfsockopen('127.0.0.1', (int) getenv('REDIS_PORT'));
    fwrite($socket, "*2\r\n\$4\r\nINCR\r\n\$8\r\nrequests\r\n");
    fgets($socket);
}

$words = explode('/', $_SERVER['REQUEST_URI']);
$bytes = (int) ($words[2] ?? 0);
$answer = match ($words[1]) {
    'plain' => 0,
    'extent' => memory_get_peak_usage(),
    'freed' => around($bytes, fn () => null),
    'at-once' => strlen(block($bytes)) + strlen(block($bytes)),
    'sleep' => around($bytes, fn () => usleep(5000)),
    'cache' => around($bytes, increment(...)),
    default => null,
};
http_response_code($answer === null ? 404 : 200);
header('Content-Type: text/plain');
echo $answer, "\n";
