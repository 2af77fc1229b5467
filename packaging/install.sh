#!/bin/sh
# Installs wechat-token-server from the archive that this script is in: binary, user, systemd units,
# config. Run it again for another version: what you have changed stays, and the server restarts
# without refusing a connection, if it accepts the config.
#
#   sudo ./install.sh              installs, or replaces what is there
#   sudo ./install.sh uninstall    removes it; config and tokens stay
#   sudo ./install.sh purge        removes it with config, secrets, tokens and user
set -eu

NAME=wechat-token-server
BIN=/usr/local/bin
ETC=/etc/$NAME
STATE=/var/lib/$NAME
UNITS=/etc/systemd/system
HTTP=$NAME-http.socket
RESP=$NAME-resp.socket

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

has_systemd() { [ -d /run/systemd/system ]; }

verify() {
    # What is installed runs as root's choice: it is what was handed out, or nothing is touched.
    [ -f SHA256SUMS ] || fail "SHA256SUMS is missing; unpack the whole archive"
    sha256sum --check --quiet SHA256SUMS || fail "the files are not those of the archive; download it again"
}

make_user() {
    getent group $NAME >/dev/null || groupadd --system $NAME
    getent passwd $NAME >/dev/null || useradd --system --gid $NAME --home-dir $STATE --no-create-home \
        --shell "$(command -v nologin || echo /sbin/nologin)" --comment $NAME $NAME
}

# New content under a name, at one stroke: a program that runs keeps its file.
replace() { # replace MODE FROM TO
    install -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}

install_units() {
    for unit in $NAME.service $HTTP $RESP; do
        sed "s|/usr/bin/$NAME|$BIN/$NAME|; s|/usr/share/doc/$NAME|the archive|" "$unit" >"$UNITS/.$unit"
        replace 644 "$UNITS/.$unit" "$UNITS/$unit"
        rm "$UNITS/.$unit"
    done
    # LoadCredential= came with systemd 247; where it is not known the server reads the files itself.
    if [ "$(systemctl --version | awk 'NR == 1 { print $2 + 0 }')" -lt 247 ]; then
        mkdir -p "$UNITS/$NAME.service.d"
        printf '[Service]\nEnvironment=CREDENTIALS_DIRECTORY=%s/credentials\n' $ETC \
            >"$UNITS/$NAME.service.d/credentials.conf"
        chgrp $NAME $ETC/credentials $ETC/credentials/*
        chmod 750 $ETC/credentials
        chmod 640 $ETC/credentials/*
    fi
}

install_config() {
    mkdir -p $ETC
    if [ ! -d $ETC/credentials ]; then
        mkdir $ETC/credentials
        chmod 700 $ETC/credentials
    fi
    for secret in appid secret request_secret store_key; do
        [ -e $ETC/credentials/$secret ] || install -m 600 /dev/null $ETC/credentials/$secret
    done
    if [ -e $ETC/config.ron ]; then
        # Yours; the new one lies beside it where it differs.
        cmp -s config.ron $ETC/config.ron || replace 640 config.ron $ETC/config.ron.dist
    else
        replace 640 config.ron $ETC/config.ron
        chgrp $NAME $ETC/config.ron
    fi
}

install_extras() { # manual page and completions, where the archive has them
    [ ! -f man/$NAME.1.gz ] || install -D -m 644 man/$NAME.1.gz /usr/local/share/man/man1/$NAME.1.gz
    [ ! -f completions/bash ] || install -D -m 644 completions/bash /usr/local/share/bash-completion/completions/$NAME
    [ ! -f completions/zsh ] || install -D -m 644 completions/zsh /usr/local/share/zsh/site-functions/_$NAME
    [ ! -f completions/fish ] || install -D -m 644 completions/fish /usr/local/share/fish/vendor_completions.d/$NAME.fish
}

# With the environment of the one that runs, if one does: the config may name its variables.
accepts_config() {
    pid=$(systemctl show --property MainPID --value $NAME.service 2>/dev/null || echo 0)
    if [ "${pid:-0}" != 0 ] && [ -r "/proc/$pid/environ" ]; then
        xargs -0 -a "/proc/$pid/environ" sh -c "exec env -i \"\$@\" $BIN/$NAME --config $ETC/config.ron check" sh
    else
        CREDENTIALS_DIRECTORY=$ETC/credentials $BIN/$NAME --config $ETC/config.ron check
    fi >/dev/null 2>&1
}

begin() {
    systemctl daemon-reload
    systemctl enable --quiet $NAME.service $HTTP $RESP
    if accepts_config; then
        systemctl start $HTTP $RESP
        systemctl restart $NAME.service
        say "$NAME runs: systemctl status $NAME"
        say "The key for clients: sudo cat $STATE/request_secret"
    elif systemctl --quiet is-active $NAME.service; then
        say "This version does not accept $ETC/config.ron, so the one before it goes on running. What to change:"
        say "  sudo $BIN/$NAME -c $ETC/config.ron check"
        say "Then run: systemctl restart $NAME"
    else
        say "Write the account's appid and secret into the files of these names in $ETC/credentials,"
        say "then run: systemctl start $NAME"
        say "请将 appid 和 secret 写入 $ETC/credentials 中的同名文件，然后执行上述命令。"
    fi
}

do_install() {
    for tool in sha256sum useradd getent install xargs; do
        command -v $tool >/dev/null || fail "$tool is needed and not there"
    done
    verify
    [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || fail "this archive is for Linux on x86-64"
    make_user
    mkdir -p $BIN
    replace 755 $NAME $BIN/$NAME
    install_config
    install_extras
    if has_systemd; then
        install_units
        begin
    else
        install -d -m 700 -o $NAME -g $NAME $STATE
        say "There is no systemd here. Start it as the user $NAME, with a supervisor of yours:"
        say "  CREDENTIALS_DIRECTORY=/where/that/user/reads/the/secrets $BIN/$NAME --config $ETC/config.ron"
    fi
}

do_uninstall() {
    if has_systemd; then
        # The sockets first: they would start it again.
        for unit in $HTTP $RESP $NAME.service; do
            [ ! -e "$UNITS/$unit" ] || systemctl --quiet disable --now "$unit"
        done
        rm -f "$UNITS/$NAME.service" "$UNITS/$HTTP" "$UNITS/$RESP" "$UNITS/$NAME.service.d/credentials.conf"
        systemctl daemon-reload
    fi
    rm -f $BIN/$NAME /usr/local/share/man/man1/$NAME.1.gz /usr/local/share/bash-completion/completions/$NAME \
        /usr/local/share/zsh/site-functions/_$NAME /usr/local/share/fish/vendor_completions.d/$NAME.fish
}

cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || fail "run it as root"
case ${1:-install} in
install) do_install ;;
uninstall)
    do_uninstall
    say "$NAME is removed; $ETC and $STATE are still there ($0 purge removes them)"
    ;;
purge)
    do_uninstall
    rm -rf $ETC $STATE
    rm -rf "$UNITS/$NAME.service.d" "$UNITS/$HTTP.d" "$UNITS/$RESP.d"
    ! getent passwd $NAME >/dev/null || userdel $NAME
    say "$NAME is removed, with config, secrets and tokens"
    ;;
*) fail "usage: install.sh [install|uninstall|purge]" ;;
esac
