const months = 'January February March April May June July August September October November December'.split(' ')
const days = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ')

/** Python's `strftime` in the C locale, for the directives that chat templates use. Unknown ones stay as they are. */
export function strftime(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  return format.replace(/%-?[a-zA-Z%]/g, (directive) => {
    const padded = directive[1] !== '-'
    const number = (value: number): string => (padded ? two(value) : String(value))
    switch (directive.at(-1)) {
      case 'Y':
        return String(date.getFullYear())
      case 'y':
        return number(date.getFullYear() % 100)
      case 'm':
        return number(date.getMonth() + 1)
      case 'd':
        return number(date.getDate())
      case 'H':
        return number(date.getHours())
      case 'I':
        return number(date.getHours() % 12 === 0 ? 12 : date.getHours() % 12)
      case 'M':
        return number(date.getMinutes())
      case 'S':
        return number(date.getSeconds())
      case 'p':
        return date.getHours() < 12 ? 'AM' : 'PM'
      case 'B':
        return months[date.getMonth()] ?? ''
      case 'b':
        return (months[date.getMonth()] ?? '').slice(0, 3)
      case 'A':
        return days[date.getDay()] ?? ''
      case 'a':
        return (days[date.getDay()] ?? '').slice(0, 3)
      case '%':
        return '%'
      default:
        return directive
    }
  })
}
