# What the ssh provider does on a host: looks at its slots, claims one, ends a
# machine. Read from stdin by `sh -s` after the values that stand before it; any
# POSIX shell runs it, dash and BusyBox too. Every line of an answer begins with
# the call's tag, and one without its last line is no answer. Whom to end is
# decided by the marker in a process's environment, never by what a file says.

say() { printf '%s %s\n' "$tag" "$*"; }

# Ends the call; never from within a pipe or `$( )`.
quit() {
    say "$@"
    say end
    exit 0
}

shown() { head -c 2048 | od -A n -v -t x1 | tr -d ' \n'; }

nap() { sleep 0.05 2>/dev/null || sleep 1; }

prepare() {
    LC_ALL=C
    PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
    export LC_ALL PATH
    umask 077
    marker="OUTLAST_MACHINE_ID=$machine"
    for tool in awk find flock grep head mkdir mv od rm sed sleep tr uname; do
        command -v "$tool" >/dev/null 2>&1 || quit missing "$tool"
    done
    [ "$(printf A | shown)" = 41 ] || quit missing od-tx1
    printf 'a\0b\0' | grep -qzxF b 2>/dev/null || quit missing grep-z
    [ -r /proc/self/environ ] || quit missing proc
    case $base in
    /*) ;;
    *)
        [ -n "${HOME-}" ] && [ -d "$HOME" ] || quit no-home
        base=$HOME/$base
        ;;
    esac
    slots=$base/slots
    machines=$base/machines
    groups=
    for group in "/sys/fs/cgroup/outlast-$machine" "/sys/fs/cgroup/unified/outlast-$machine"; do
        [ -n "$machine" ] && [ -d "$group" ] && groups="$groups $group"
    done
    if [ -n "$machine" ] && [ -d /sys/fs/cgroup/user.slice ]; then
        # Where the guard is a unit of the user's own systemd.
        groups="$groups $(find /sys/fs/cgroup/user.slice -maxdepth 6 -type d -name "outlast-$machine.service" 2>/dev/null | head -n 4 | tr '\n' ' ')"
    fi
    node=$(uname -n | tr -dc 'A-Za-z0-9._-' | head -c 64)
    boot=$(head -c 64 /proc/sys/kernel/random/boot_id 2>/dev/null | tr -dc '0-9a-f-')
}

# One change at a time on a host; nothing slow is done meanwhile.
enter() {
    mkdir -p "$slots" "$machines" 2>/dev/null || quit no-base "$(mkdir -p "$slots" "$machines" 2>&1 | shown)"
    true 2>/dev/null >>"$slots/.lock" || quit no-base "$( (true >>"$slots/.lock") 2>&1 | shown)"
    exec 9>>"$slots/.lock"
    tries=0
    until flock -n 9; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || quit busy
        nap
    done
}

leave() { exec 9>&-; }

# The slot's number from the path of its claim or lock; empty for other files.
number() {
    name=${1##*/}
    name=${name%.*}
    case $name in
    '' | *[!0-9]* | ?????* | 0?*) name= ;;
    esac
    [ -n "$name" ]
}

# The value of a line of a claim.
line() { head -c 2048 "$2" | sed -n "s/^$1 //p" | head -n 1; }

plain() { [ -f "$1" ] && [ ! -L "$1" ]; }

# Whether somebody holds the lock of slot $1: its guard does as long as it lives.
held() {
    plain "$slots/$1.lock" || return 1
    flock -n -s "$slots/$1.lock" true 2>/dev/null
    [ $? = 1 ]
}

# When process $1 started, in $start; empty where it has ended.
stamp() {
    start=
    stat=$(sed -n '$s/.*) //p' "/proc/$1/stat" 2>/dev/null)
    set -- $stat
    case ${1-Z} in
    Z | X | x) ;;
    *) start=${20-} ;;
    esac
}

# Whether the very process that file $1 names still runs.
runs() {
    plain "$1" || return 1
    text=$(head -c 4096 "$1" | tr -d ' \n\t\0')
    pid=$(printf '%s' "$text" | sed -n 's/.*"pid":\([0-9]\{1,9\}\)[,}].*/\1/p')
    begun=$(printf '%s' "$text" | sed -n 's/.*"start_time":\([0-9]\{1,19\}\)[,}].*/\1/p')
    [ -n "$pid" ] && [ -n "$begun" ] || return 1
    stamp "$pid"
    [ "$start" = "$begun" ]
}

# How far along the machine is that claims slot $1, in $state. As long as its
# guard or an agent runs it is up; after them, or after a boot of the host, it
# will never be again.
judge() {
    state=up
    of=$(line machine "$slots/$1.claim")
    case $of in
    *[!a-z2-7]*) of= ;;
    esac
    # Looked for before all else: a guard that comes up meanwhile has not ended.
    came=
    if [ -n "$of" ]; then
        if [ -e "$machines/$of/guard.json" ] || [ -L "$machines/$of/guard.json" ]; then came=1; fi
    fi
    if held "$1"; then return; fi
    if [ -z "$of" ]; then
        state=unclear
        return
    fi
    looked=0
    for file in "$machines/$of/guard.json" "$machines/$of/agents"/*.json; do
        looked=$((looked + 1))
        [ "$looked" -le 32 ] || break
        if runs "$file"; then return; fi
    done
    state=ended
    [ "$(line boot "$slots/$1.claim")" = "$boot" ] || return
    [ -n "$came" ] || state=booting
}

# The processes of the machine, in $found: those with its marker, what descends
# from them, and what is in its control group. Never this script's own.
find_marked() {
    found=
    [ -n "$machine" ] || return
    seeds=$(grep -lszxF -e "$marker" /proc/[0-9]*/environ </dev/null)
    [ $? -le 2 ] || quit missing proc-list
    members=
    for group in $groups; do
        members="$members $(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | tr -dc '0-9\n' | tr '\n' ' ')"
    done
    [ -n "$seeds$members" ] || return
    seeds=$(printf '%s ' $seeds | sed 's,/proc/\([0-9]*\)/environ,\1,g')
    found=$(grep -sE '^(PPid|State):' /proc/[0-9]*/status </dev/null | awk -v seeds="$seeds $members" -v own="$$" '
        BEGIN { n = split(seeds, s, " "); for (i = 1; i <= n; i++) want[s[i]] = 1 }
        { split($1, at, "/") }
        $1 ~ /PPid:$/ { parent[at[3]] = $2 }
        $1 ~ /State:$/ { state[at[3]] = $2 }
        END {
            if (NR == 0) { print "?"; exit }
            for (p = own; p in parent && !(p in spare) && p + 0 > 1; p = parent[p]) spare[p] = 1
            mine[own] = 1
            do { grew = 0; for (p in parent) if (!(p in mine) && (parent[p] in mine)) { mine[p] = 1; grew = 1 } } while (grew)
            do { grew = 0; for (p in parent) if (!(p in want) && (parent[p] in want)) { want[p] = 1; grew = 1 } } while (grew)
            for (p in parent) if ((p in want) && p + 0 > 1 && !(p in spare) && !(p in mine) && state[p] != "Z" && state[p] != "X") print p
        }' | tr '\n' ' ')
    case $found in *'?'*) quit missing proc-list ;; esac
}

# Ends all of them; the number of them is added to $killed. All are stopped
# before the first is killed, so that none can fork away; one that lost marker
# and parent by that is still remembered.
end_tree() {
    targets=
    quiet=0
    round=0
    while :; do
        looks=0 grew=1
        while [ -n "$grew" ] && [ "$looks" -lt 20 ]; do
            looks=$((looks + 1)) grew=
            find_marked
            for pid in $found; do
                stamp "$pid"
                [ -n "$start" ] || continue
                case " $targets " in
                *" $pid:$start "*) ;;
                *)
                    targets="$targets $pid:$start" grew=1 killed=$((killed + 1))
                    kill -s STOP "$pid" 2>/dev/null
                    ;;
                esac
            done
        done
        for group in $groups; do
            [ -w "$group/cgroup.kill" ] && echo 1 2>/dev/null >"$group/cgroup.kill"
        done
        alive=
        for target in $targets; do
            stamp "${target%:*}"
            [ "$start" = "${target#*:}" ] || continue
            kill -s KILL "${target%:*}" 2>/dev/null
            alive="$alive $target"
        done
        targets=$alive
        if [ -z "$targets" ]; then quiet=$((quiet + 1)); else quiet=0; fi
        # A fork may slip past one look through /proc, not past two.
        [ "$quiet" -lt 2 ] || break
        round=$((round + 1))
        [ "$round" -lt 60 ] || quit remains $targets
        [ -z "$targets" ] || nap
    done
    for group in $groups; do
        [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
    done
}

# Whether slot $1 is claimed by this machine. A claim by the same name that is
# another installation's, or was made on another host, ends the call.
mine() {
    plain "$slots/$1.claim" || return 1
    grep -qxF "machine $machine" "$slots/$1.claim" || return 1
    [ "$(line hub "$slots/$1.claim")" = "$hub" ] || quit foreign "$1"
    [ "$(line node "$slots/$1.claim")" = "$node" ] || quit elsewhere "$1"
}

look() {
    say node "$node"
    if [ "$gpus" = auto ]; then say gpus "$(nvidia-smi -L 2>/dev/null </dev/null | grep -c '^GPU ')"; fi
    if [ -e "$slots" ] || [ -L "$slots" ]; then
        [ -d "$slots" ] && [ -r "$slots" ] && [ -x "$slots" ] || quit no-base
        for claim in "$slots"/*.claim; do
            [ -e "$claim" ] || [ -L "$claim" ] || continue
            number "$claim" || continue
            slot=$name
            if plain "$claim"; then
                judge "$slot"
                say slot "$slot" "$state" "$(shown <"$claim")"
            else
                say slot "$slot" unclear
            fi
        done
        for lock in "$slots"/*.lock; do
            number "$lock" || continue
            [ -e "$slots/$name.claim" ] || [ -L "$slots/$name.claim" ] || ! held "$name" || say held "$name"
        done
    fi
    if [ -n "$machine" ]; then
        find_marked
        set -- $found
        say marked "$#"
        set -- "$machines/.trash-$machine-"* "$machines/$machine"
        left=0
        for path in "$@"; do
            [ -e "$path" ] || [ -L "$path" ] || continue
            left=$((left + 1))
        done
        say left "$left"
    fi
}

# Writes the claim of slot $1 whole before it gets its name.
take() {
    eval "share=\${share_$1-}"
    draft=$slots/.new-$1
    rm -rf -- "$draft"
    {
        printf 'outlast-claim 1\nhub %s\nmachine %s\nlabel %s\n' "$hub" "$machine" "$label"
        printf 'node %s\nboot %s\ngpus %s\nend\n' "$node" "$boot" "${share:--}"
    } 2>/dev/null >"$draft" || quit no-base "$(printf 'no room for a claim' | shown)"
    true 2>/dev/null >>"$slots/$1.lock" || quit no-base "$(printf 'the lock file cannot be made' | shown)"
    mkdir -p "$machines/$machine" 2>/dev/null || quit no-base "$(mkdir -p "$machines/$machine" 2>&1 | shown)"
    mv -f -- "$draft" "$slots/$1.claim" 2>/dev/null || quit no-base "$(printf 'the claim cannot be named' | shown)"
}

claim() {
    enter
    for claim in "$slots"/*.claim; do
        number "$claim" || continue
        if mine "$name"; then quit claimed "$name"; fi
    done
    n=0
    while [ "$n" -lt "$count" ]; do
        if [ ! -e "$slots/$n.claim" ] && [ ! -L "$slots/$n.claim" ] && ! held "$n"; then
            take "$n"
            quit claimed "$n"
        fi
        n=$((n + 1))
    done
    leave
    say full
    look
}

erase() {
    for trash in "$machines/.trash-$machine-"*; do
        [ -e "$trash" ] || [ -L "$trash" ] || continue
        existed=1
        rm -rf -- "$trash" 2>/dev/null && continue
        # Gives back the right to remove what lies in directories that were closed.
        find "$trash" -type d -exec chmod 700 {} \; 2>/dev/null
        rm -rf -- "$trash" 2>/dev/null || quit erase "$(rm -rf -- "$trash" 2>&1 | shown)"
    done
}

free_slots() {
    [ -d "$slots" ] || return
    enter
    for claim in "$slots"/*.claim; do
        number "$claim" || continue
        mine "$name" || continue
        existed=1
        if held "$name"; then quit lock "$name"; fi
        rm -f -- "$claim" || quit erase
    done
    if [ -e "$machines/$machine" ] || [ -L "$machines/$machine" ]; then
        existed=1
        mv -f -- "$machines/$machine" "$machines/.trash-$machine-$$-$turn" 2>/dev/null ||
            quit erase "$(printf 'its directory cannot be moved away' | shown)"
    fi
    leave
}

end_machine() {
    existed=0 killed=0 turn=0
    # Before anything is touched: is it this installation's, and of this host?
    for claim in "$slots"/*.claim; do
        number "$claim" || continue
        mine "$name" || continue
        existed=1
    done
    while :; do
        end_tree
        free_slots
        erase
        # What was being started meanwhile.
        find_marked
        [ -n "$found" ] || break
        turn=$((turn + 1))
        [ "$turn" -lt 5 ] || quit remains $found
    done
    say ended "$existed" "$killed"
}

main() {
    prepare
    say base "$(printf '%s' "$base" | shown)"
    "$1"
    say end
}
