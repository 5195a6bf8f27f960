#!/bin/busybox sh
# Process 1 of a kernel boot test: traces the guest's server under a known load.
#
# In: an initramfs with busybox, memtrace, guest_server and guest_client in
# /bin, and the numbers of the load in /load. Out: on the console, one section
# per step between `== begin NAME` and `== end NAME STATUS` lines; then the
# machine is switched off. It judges nothing: the host reads the sections, and
# one that is missing tells it how far the guest came.
# tracefs is left unmounted on purpose: memtrace has to find or mount it.

/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
# Kernel messages would land in the middle of a section.
dmesg -n 1
ip link set lo up

# begin NAME, the output, then end NAME STATUS. The newlines close what the
# firmware, the kernel or a program left in the middle of a line.
begin() { echo; echo "== begin $1"; }
end() { echo; echo "== end $1 $2"; }
section() {
    name=$1
    shift
    begin "$name"
    "$@" 2>&1
    end "$name" $?
}

trace() {
    # A pipe each, read to the line that is waited for: no sleeping, no polling.
    mkfifo /tmp/memtrace.stderr
    memtrace record --pid "$server" -o /tmp/t.memtrace --json-out /tmp/live.json \
        2>/tmp/memtrace.stderr &
    memtrace=$!
    exec 4</tmp/memtrace.stderr
    begin attach
    attached=1
    while read -r line <&4; do
        echo "$line"
        case $line in
        "memtrace: tracing"*) attached=0; break ;;
        esac
    done
    end attach $attached
    [ $attached = 0 ] || return

    # The numbers are one set of words each, split on purpose.
    . /load
    section load_keep guest_client $port $load_keep
    section load_close guest_client $port $load_close

    # The server answers once every connection is closed, so nothing of the
    # load is left to happen when the tracer is told to end.
    begin counters
    kill -USR1 "$server"
    read -r line <&3
    echo "$line"
    end counters $?

    begin record
    kill -INT "$memtrace"
    cat <&4
    wait "$memtrace"
    end record $?
    section live cat /tmp/live.json
    section report memtrace report /tmp/t.memtrace --format json
    section table memtrace report /tmp/t.memtrace
    section load_after guest_client $port $load_after
}

section kernel uname -r
section btf ls -l /sys/kernel/btf/vmlinux

. /load
mkfifo /tmp/server.stdout
begin server
guest_server $port >/tmp/server.stdout &
server=$!
exec 3</tmp/server.stdout
read -r line <&3
echo "$line"
end server $?

section doctor memtrace doctor
section doctor_pid memtrace doctor --pid "$server"
trace
poweroff -f
