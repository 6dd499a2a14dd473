#!/bin/bash
# Inside the installed tree: the dyno user, the folders dynos expect, and the registry list.
#
#   customize.sh TREE        (called by mmdebstrap, /proc and /dev of the tree are mounted)
set -euo pipefail
tree=$1

chroot "$tree" groupadd --gid 1000 dyno
chroot "$tree" useradd --uid 1000 --gid 1000 --home-dir /app --no-create-home --shell /bin/bash dyno
install -d -o 1000 -g 1000 -m 755 "$tree/app" "$tree/cache"
install -d -o 0 -g 0 -m 755 "$tree/buildpacks" "$tree/etc/dyno"

# /etc/dyno/registries: the only hosts a build has to reach, one per line. Each package client is
# asked for its own defaults, with an empty environment so that no setting of the machine that
# builds the image gets in. What they leave in their HOME goes with /tmp.
ask() {
    local client=$1 hosts
    shift
    hosts=$(chroot "$tree" env -i PATH=/usr/bin:/bin HOME=/tmp/ask "$@" \
        | sed -E 's,^[a-z]+://,,; s,[:/].*$,,' | grep -E '^[a-z0-9.-]+\.[a-z]+$') \
        || { echo "E: $client does not say which registry it uses" >&2; exit 1; }
    printf '%s\n' "$hosts"
}
# Bundler reads its index from another host than the one in a Gemfile's source line.
bundler_index='
    require "uri"
    require "bundler"
    remote = Bundler::Source::Rubygems::Remote.new(URI(Gem::DEFAULT_HOST))
    puts Bundler::Fetcher::CompactIndex.new(nil, remote, nil).fetch_uri'
{
    ask pip python3 -c '
from pip._internal.models.index import PyPI
print(PyPI.netloc)
print(PyPI.file_storage_domain)'
    ask npm npm config get registry --userconfig=/nonexistent/user --globalconfig=/nonexistent/global
    ask gem ruby -e 'puts Gem.default_sources, Gem::DEFAULT_HOST'
    ask bundler ruby -e "$bundler_index"
} >"$tree/etc/dyno/registries.new"
LC_ALL=C sort -u "$tree/etc/dyno/registries.new" >"$tree/etc/dyno/registries"
rm "$tree/etc/dyno/registries.new"
