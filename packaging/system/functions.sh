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

# Starts the agent, or says why not and what to do.
start_agent() {
  rm -f $state/removed
  if hsflowd_runs; then
    cat <<TEXT
weir: hsflowd runs on this machine: weir is installed and not started, because collectors would get everything twice.
weir: To put weir in its place, with the same configuration:
weir:     systemctl disable --now hsflowd && systemctl enable --now weir
TEXT
    return 0
  fi
  if ! problems=$(weir check 2>&1); then
    echo "$problems"
    echo "weir: it is started when its configuration is right: edit it, run 'weir check', then 'systemctl start weir'"
    enable_service
    return 0
  fi
  if systemd; then
    enable_service
    systemctl daemon-reload || true
    systemctl start weir.service || echo "weir: it did not start: see 'systemctl status weir'"
  elif command -v update-rc.d >/dev/null; then
    update-rc.d weir defaults >/dev/null || true
    if [ ! -e /.dockerenv ] && [ -e /sbin/init ] && command -v runlevel >/dev/null; then
      /etc/init.d/weir start || true
    fi
  fi
}

# Without the links of /etc/init.d, which systemctl would make as well: systemd takes its own file where it has one.
enable_service() {
  if systemd; then SYSTEMCTL_SKIP_SYSV=1 systemctl --quiet --no-reload enable weir.service || true; fi
}

# While systemd still has the file: of a service that it does not know it takes the script of /etc/init.d, which stays
# until the package is purged.
disable_service() {
  if command -v systemctl >/dev/null; then
    SYSTEMCTL_SKIP_SYSV=1 systemctl --quiet --no-reload disable weir.service 2>/dev/null || true
  fi
}

# The new version takes the place of one that runs; whether it is started with the system stays as somebody has set it.
restart_agent() {
  if systemd; then
    systemctl daemon-reload || true
    systemctl try-restart weir.service || echo "weir: it did not start: see 'systemctl status weir'"
  elif /etc/init.d/weir status >/dev/null 2>&1; then
    /etc/init.d/weir restart || true
  fi
}

stop_agent() {
  if systemd; then
    systemctl stop weir.service || true
  elif [ -x /etc/init.d/weir ]; then
    /etc/init.d/weir stop || true
  fi
  # One that was killed may have left something.
  if [ -x /usr/bin/weir ]; then weir cleanup || true; fi
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
