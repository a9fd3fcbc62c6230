/**
 * The machine in one line, for people: maker and model, distribution, kernel, architecture; what is not known is left
 * out. systeminformation asks programs such as dmidecode for it, so this is for commands that end soon, never for the
 * running agent.
 */
export async function describeMachine(): Promise<string> {
  const { get } = await import('systeminformation')
  const { system, osInfo } = (await get({
    system: 'manufacturer, model',
    osInfo: 'distro, release, kernel, arch',
  })) as Record<'system' | 'osInfo', Record<string, string | undefined>>
  return [
    `${system.manufacturer ?? ''} ${system.model ?? ''}`,
    `${osInfo.distro ?? ''} ${osInfo.release ?? ''}`,
    `Linux ${osInfo.kernel ?? ''}`,
    osInfo.arch ?? '',
  ]
    .map(part => part.trim())
    .filter(part => part !== '' && part !== 'Linux')
    .join(', ')
}
