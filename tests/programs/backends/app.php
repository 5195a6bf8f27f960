<?php
// Answers with a body of a size that its path tells, or with a status.
$parts = explode('/', explode('?', $_SERVER['REQUEST_URI'])[0]);
if ($parts[2] === 'missing') {
    http_response_code(404);
}
file_get_contents('php://input');
echo str_repeat('x', (int) ($parts[3] ?? 10));
