<?php
// Answers with the peak of its own heap, after a string of as many bytes as the
// path ends with: `php -S ADDRESS peak.php`.
$bytes = (int) basename($_SERVER['REQUEST_URI']);
$held = str_repeat('x', $bytes);
echo memory_get_peak_usage();
