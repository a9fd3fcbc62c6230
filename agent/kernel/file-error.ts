/** Why a file that somebody named could not be read or written, in their words and without its name. */
export function fileErrorReason({ code, message }: NodeJS.ErrnoException): string {
  switch (code) {
    case 'ENOENT':
      return 'it does not exist'
    case 'EACCES':
      return 'permission denied'
    case 'EISDIR':
      return 'it is a directory'
    default:
      return message
  }
}
