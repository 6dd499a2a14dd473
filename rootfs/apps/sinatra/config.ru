# Lines appear in the log when they are written, not when a buffer is full.
$stdout.sync = true
require_relative "app"
run App
