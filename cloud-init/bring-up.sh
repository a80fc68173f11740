# Puts an Outlast agent on a machine and starts it. Any POSIX sh reads this
# from its standard input, as text of a length that was said before; what it
# needs to know follows there, line by line. It may be cut off anywhere and run
# again: files get their names only when they are whole, and a guard that runs
# already is left alone. The join secret comes as a line and goes to a file; it
# is in no argument and in no output.
set -eu
umask 077
LC_ALL=C
export LC_ALL
say() { printf 'outlast-said %s\n' "$*"; }
fail() {
	printf '%s\n' "$*" >&2
	exit 70
}
digest_of() {
	sum=$(sha256sum <"$1" 2>/dev/null || shasum -a 256 <"$1" 2>/dev/null || openssl dgst -sha256 -r <"$1") ||
		fail "there is no sha256sum, shasum or openssl on the machine"
	printf '%s' "${sum%% *}"
}
whole() {
	[ -f "agents/$1/outlast-agent" ] && [ "$(digest_of "agents/$1/outlast-agent")" = "$1" ]
}
IFS= read -r verb
IFS= read -r base
case $base in
/*) ;;
*) base=${HOME:-$(pwd)}/$base ;;
esac
mkdir -p -- "$base" || fail "$base cannot be made on the machine"
cd -- "$base"
base=$(pwd -P)

case $verb in
look)
	# Which digests are wanted, one a line, until an empty one.
	say "system $(uname -s) $(uname -m)"
	say "base $base"
	while IFS= read -r digest && [ -n "$digest" ]; do
		if whole "$digest"; then say "agent $digest"; fi
	done
	;;
push)
	IFS= read -r digest
	IFS= read -r size
	mkdir -p "agents/$digest"
	part=agents/$digest/part.$$
	trap 'rm -f "$part"' EXIT
	trap 'exit 70' HUP INT TERM
	cat >"$part" || fail "the agent cannot be written below $base on the machine"
	came=$(wc -c <"$part")
	[ "$((came))" -eq "$size" ] || fail "the agent came cut off: $((came)) of $size bytes"
	[ "$(digest_of "$part")" = "$digest" ] || fail "the agent came damaged"
	chmod 700 "$part"
	mv -f "$part" "agents/$digest/outlast-agent"
	;;
start)
	IFS= read -r id
	IFS= read -r digest
	IFS= read -r machine
	IFS= read -r secret
	set --
	while IFS= read -r pair && [ -n "$pair" ]; do
		export "${pair?}"
		set -- "$@" "--setenv=$pair"
	done
	whole "$digest" || fail "the agent is not whole on the machine"
	agent=$base/agents/$digest/outlast-agent
	"$agent" agent --version >/dev/null 2>&1 ||
		fail "the agent does not run on the machine: $("$agent" agent --version 2>&1 | tail -n 1)"
	state=$base/machines/$id
	mkdir -p "$state" "$base/cache"
	cd "$state"
	cat >machine.part <<-END
		$machine
	END
	mv -f machine.part machine.json
	if [ -n "$secret" ]; then
		cat >join.part <<-END
			$secret
		END
		mv -f join.part join.token
	fi
	ln -sf "$agent" agent.part
	mv -f agent.part outlast-agent
	OUTLAST_MACHINE_ID=$id
	export OUTLAST_MACHINE_ID
	# Under the user's own systemd where that outlives this login, else in a
	# session of its own. A second guard ends by itself.
	unit=outlast-$id
	started=
	if [ -n "${OUTLAST_SLOT_LOCK:-}" ]; then
		# The guard takes the slot's lock itself, in its own session: held here
		# too, it could never have it.
		:
	elif [ "$(loginctl show-user "$(id -un)" -p Linger --value 2>/dev/null)" = yes ]; then
		if systemctl --user is-active --quiet "$unit" 2>/dev/null ||
			systemd-run --user --quiet --collect --unit="$unit" -p KillMode=process -p Delegate=yes \
				"--setenv=OUTLAST_MACHINE_ID=$id" "--setenv=PATH=$PATH" "--setenv=HOME=${HOME:-}" "$@" \
				"$state/outlast-agent" guard --state "$state" </dev/null >/dev/null 2>&1; then
			started=yes
		fi
	fi
	if [ -z "$started" ] && command -v setsid >/dev/null 2>&1; then
		setsid "$state/outlast-agent" guard --state "$state" </dev/null >>guard.log 2>&1 &
	elif [ -z "$started" ]; then
		(
			trap '' HUP
			exec "$state/outlast-agent" guard --state "$state" </dev/null >>guard.log 2>&1
		) &
	fi
	;;
*) fail "this is not known: $verb" ;;
esac
say "done"
