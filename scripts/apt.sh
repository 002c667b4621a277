# shellcheck shell=bash
# For scripts to include: packages of Debian, fetched into a folder and not installed. Sets `mirror` and `keyring`; run
# `apt_beside` in a work folder that has a sources.list.

mirror=$(apt-get --print-uris update 2>/dev/null | sed -n "s|^'\(https\?://[^']*/debian\)/dists/.*|\1|p" | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# apt-get with lists and packages of its own, beside those of the system, and for another architecture if
# `apt_architecture` names one. Usage: apt_beside WORK ARGUMENTS
apt_beside() {
    apt_tool_beside apt-get "$@" >&2
}

# Any tool of apt's, with these lists. Usage: apt_tool_beside TOOL WORK ARGUMENTS
apt_tool_beside() {
    local tool=$1 work=$2 architecture=${apt_architecture:-$(dpkg --print-architecture)}
    shift 2
    mkdir -p "$work"/{lists,archives}/partial
    "$tool" --quiet --quiet -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work" \
        -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::Check-Valid-Until=false \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@"
}
