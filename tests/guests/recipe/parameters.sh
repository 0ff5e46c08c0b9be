# What the guests are.  Sourced by make-guests and build.
# shellcheck shell=bash disable=SC2034

readonly guest_mib=512

# Fewer non-zero pages than this and a guest has not done its job.
readonly least_nonzero=30000

# name:role; guest-job says what a role does.
readonly guests=(
    idle-a:idle
    idle-b:idle
    web:web
    compile:compile
)

# Two guests at once suits the smallest machines that run the tests.
readonly guests_at_once=2

# Beside what Debian calls essential or required (usr-is-merged: debootstrap
# wants it).
readonly guest_packages=(
    # the system, as on any server
    linux-image-cloud-amd64 initramfs-tools zstd
    systemd systemd-sysv udev dbus libpam-systemd kmod
    usr-is-merged apt cron rsyslog openssh-server iproute2 procps less vim-tiny
    # web: a server, and what asks it
    nginx-light wget
    # compile: libstb-dev is a good half megabyte of real C in a dozen files
    gcc libc6-dev make libstb-dev
    # documents to serve, programs to read
    perl python3
)

readonly apt_options=(
    -o Acquire::Retries=2
    -o Acquire::http::Timeout=30
    -o Acquire::https::Timeout=30
    -o DPkg::Lock::Timeout=120
)
