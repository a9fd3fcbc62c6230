/** The scripts that a package manager runs before and after it has put files in place or taken them away. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const functions = readFileSync(join(import.meta.dirname, 'system/functions.sh'), 'utf8')

/** Debian's, by the names that dpkg knows. */
export const DEBIAN_SCRIPTS: Readonly<Record<string, string>> = {
  postinst: script(`case $1 in
  configure)
    add_user
    install_conf
    install_auto
    # Also when it is installed again after it had been removed.
    if [ -n "\${2-}" ] && [ ! -e $state/removed ]; then restart_agent; else start_agent; fi
    ;;
esac`),
  prerm: script(`case $1 in
  remove)
    stop_agent
    disable_service
    touch $state/removed || true
    ;;
esac`),
  postrm: script(`case $1 in
  remove)
    remove_auto
    forget_service
    ;;
  purge)
    purge
    ;;
esac`),
}

/** Those of rpm, whose argument is the number of versions that will be installed: 1 at an install, 2 at an upgrade. */
export const RPM_SCRIPTS: Readonly<Record<string, string>> = {
  post: body(`add_user
install_conf
install_auto
if [ "$1" -gt 1 ]; then restart_agent; else start_agent; fi`),
  preun: body(`if [ "$1" = 0 ]; then
  stop_agent
  disable_service
fi`),
  // rpm has no purge: a configuration that nobody has changed goes, another one stays as rpm's own do.
  postun: body(`if [ "$1" = 0 ]; then
  remove_auto
  forget_service
  if cmp -s $conf $state/weir.conf.packaged; then rm -f $conf; fi
  if [ -e $conf ]; then mv $conf $conf.rpmsave; fi
  purge
fi`),
}

function script(lines: string): string {
  return `#!/bin/sh\nset -e\n\n${withFunctions(lines)}`
}

function body(lines: string): string {
  return `set -e\n\n${withFunctions(lines)}`
}

/** The lines, behind those functions that they call, and that these call. */
function withFunctions(lines: string): string {
  const paragraphs = functions.trim().split('\n\n')
  const nameOf = (text: string) => /^(\w+)\(\) \{/m.exec(text)?.[1]
  const named = new Map(paragraphs.map(text => [nameOf(text) ?? '', text]))
  const wanted = new Set<string>()
  const want = (text: string) => {
    for (const name of named.keys()) {
      if (name === '' || wanted.has(name) || !new RegExp(`\\b${name}\\b`).test(text)) continue
      wanted.add(name)
      want(named.get(name)!.replace(/^ *#.*$/gm, ''))
    }
  }
  want(lines)
  const used = paragraphs.filter(text => nameOf(text) === undefined || wanted.has(nameOf(text)!))
  return [...used, lines, ''].join('\n\n')
}
