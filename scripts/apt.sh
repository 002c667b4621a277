# shellcheck shell=bash
# For scripts to include: packages of Debian, fetched into a folder and not installed. Sets `mirror` and `keyring`; run
# `apt_beside` in a work folder that has a sources.list.

mirror=$(apt-get --print-uris update 2>/dev/null | sed -n "s|^'\(https\?://[^']*/debian\)/dists/.*|\1|p" | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# apt with lists and packages of its own, beside those of the system. Usage: apt_beside WORK ARGUMENTS
apt_beside() {
    local work=$1
    shift
    mkdir -p "$work"/{lists,archives}/partial
    apt-get --quiet --quiet -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@" >&2
}
