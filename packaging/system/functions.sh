# What the scripts of both kinds of package do.

conf=/etc/weir.conf
state=/var/lib/weir
auto=/etc/hsflowd.auto

systemd() { [ -d /run/systemd/system ]; }

add_user() {
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers weir.conf
  elif ! id weir >/dev/null 2>&1; then
    # A group for the user alone, whatever the machine's habit is.
    groupadd --system weir 2>/dev/null || true
    useradd --system --gid weir --no-create-home --home-dir / --shell /usr/sbin/nologin weir
  fi
}

remove_user() {
  if id weir >/dev/null 2>&1; then userdel weir || true; fi
  if getent group weir >/dev/null 2>&1; then groupdel weir || true; fi
}

# The machine's hsflowd.conf is taken as it is; one of our own is made only where there is none. It is replaced by that
# of a newer version as long as nobody has changed it.
install_conf() {
  mkdir -p $state
  if [ -e $conf ]; then
    if cmp -s $conf $state/weir.conf.packaged; then cp /usr/share/weir/weir.conf $conf; fi
  elif [ ! -e /etc/hsflowd.conf ] && [ ! -e $state/weir.conf.packaged ]; then
    if cp /usr/share/weir/weir.conf $conf; then
      echo "weir: samples go to this machine, 127.0.0.1, until $conf names another collector"
    else
      echo "weir: $conf cannot be written; name another file with 'weir run -f'"
    fi
  fi
  cp /usr/share/weir/weir.conf $state/weir.conf.packaged || true
}

# Where other programs read the settings in force: in /etc by its name, written where the agent's own user may write.
install_auto() {
  [ ! -L $auto ] || return 0
  [ ! -e /usr/sbin/hsflowd ] || return 0
  if [ -f $auto ]; then mv $auto $state/hsflowd.auto || return 0; fi
  ln -s $state/hsflowd.auto $auto 2>/dev/null || true
  if id weir >/dev/null 2>&1; then chown -R weir:weir $state 2>/dev/null || true; fi
}

remove_auto() {
  if [ "$(readlink $auto)" = $state/hsflowd.auto ]; then rm -f $auto; fi
}

hsflowd_runs() { grep -qsx hsflowd /proc/[0-9]*/comm; }

# Whether the machine's owner lets packages do this with services: policy-rc.d, as invoke-rc.d(8) and
# deb-systemd-invoke(1) ask it, which a machine need not have.
allowed() {
  answer=0
  if [ -x /usr/sbin/policy-rc.d ]; then /usr/sbin/policy-rc.d weir "$1" >/dev/null || answer=$?; fi
  case $answer in
    0 | 1 | 104 | 105) ;;
    *)
      echo "weir: no $1: /usr/sbin/policy-rc.d forbids it with $answer"
      return 1
      ;;
  esac
}

# The command with which somebody starts, stops or restarts the agent.
by_hand() {
  if systemd; then echo "systemctl $1 weir"; else echo "/etc/init.d/weir $1"; fi
}

# Starts the agent, or says why not and what to do.
start_agent() {
  rm -f $state/removed
  if hsflowd_runs; then
    if systemd; then
      change="systemctl disable --now hsflowd && systemctl enable --now weir"
    elif command -v update-rc.d >/dev/null; then
      change="/etc/init.d/hsflowd stop && update-rc.d hsflowd disable && update-rc.d weir defaults && /etc/init.d/weir start"
    else
      change="/etc/init.d/hsflowd stop && /etc/init.d/weir start"
    fi
    cat <<TEXT
weir: hsflowd runs on this machine: weir is installed and not started, because collectors would get everything twice.
weir: To put weir in its place, with the same configuration:
weir:     $change
TEXT
    return 0
  fi
  enable_service
  allowed start || return 0
  if ! problems=$(weir check 2>&1); then
    echo "$problems"
    echo "weir: it is started when its configuration is right: edit it, run 'weir check', then '$(by_hand start)'"
  elif systemd; then
    systemctl daemon-reload || true
    systemctl start weir.service || echo "weir: it did not start: see 'systemctl status weir'"
  elif [ ! -e /.dockerenv ] && [ -e /sbin/init ] && command -v runlevel >/dev/null; then
    /etc/init.d/weir start || true
  fi
}

# For systemd also where it does not run yet, in a system that is being made. Without the links of /etc/init.d, which
# systemctl would make as well: systemd takes its own file where it has one.
enable_service() {
  if command -v systemctl >/dev/null; then
    SYSTEMCTL_SKIP_SYSV=1 systemctl --quiet --no-reload enable weir.service || true
  fi
  if ! systemd && command -v update-rc.d >/dev/null; then update-rc.d weir defaults >/dev/null || true; fi
}

# While systemd still has the file: of a service that it does not know it takes the script of /etc/init.d, which stays
# until the package is purged.
disable_service() {
  if command -v systemctl >/dev/null; then
    SYSTEMCTL_SKIP_SYSV=1 systemctl --quiet --no-reload disable weir.service 2>/dev/null || true
  fi
}

# The new version takes the place of one that runs; whether systemd starts it with the system stays as somebody has set
# it. One whose configuration is refused by now would not come back: the old process goes on, which has the old program
# and configuration in memory.
restart_agent() {
  if systemd; then
    systemctl daemon-reload || true
    case $(systemctl is-active weir.service) in inactive | failed) return 0 ;; esac
  else
    /etc/init.d/weir status >/dev/null 2>&1 || return 0
    enable_service
  fi
  allowed restart || return 0
  # The file that the agent reads.
  file=$(sed -n 3p /run/weir/weir.pid 2>/dev/null) || true
  if [ -n "$file" ] && ! problems=$(weir check -f "$file" 2>&1); then
    cat >&2 <<TEXT
$problems
weir: THE NEW VERSION IS NOT STARTED, because it refuses this configuration. The old one goes on, process
weir: $(sed -n 1p /run/weir/weir.pid), with the configuration that it took before, and until the machine or the agent is restarted:
weir: edit $file, run 'weir check', then '$(by_hand restart)' (a reload is not enough)
TEXT
  elif systemd; then
    systemctl try-restart weir.service || echo "weir: it did not start: see 'systemctl status weir'"
  else
    /etc/init.d/weir restart || true
  fi
}

stop_agent() {
  allowed stop || return 0
  if systemd; then
    systemctl stop weir.service || true
  elif [ -x /etc/init.d/weir ]; then
    /etc/init.d/weir stop || true
  fi
  # One that was killed may have left something.
  if [ -x /usr/bin/weir ]; then weir cleanup --quiet || true; fi
}

forget_service() {
  if systemd; then systemctl daemon-reload || true; fi
  rm -rf /run/weir
}

purge() {
  rm -f $conf
  rm -rf $state
  if command -v update-rc.d >/dev/null; then update-rc.d weir remove >/dev/null || true; fi
  remove_user
}
