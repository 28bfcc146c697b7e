/** Common English words, each one token in most vocabularies: what simulated engines and users talk with. */
export const words: readonly string[] = (
  'about above across after again against age ago air all also always among and animal answer any area arm around ask ' +
  'away back bad bank base bear become bed before began behind best better between big bird black blue boat body book ' +
  'both box boy bring brother build building business busy but buy call came can car care carry case catch center chair ' +
  'change check child city class clear close cold color come common complete control cost could country course cover ' +
  'cross cut dark day dead deal deep design did direct does dog door down draw dream drive dry during each early earth ' +
  'east easy eat end enough even evening ever every example eye face fact fall family far farm fast father feel feet few ' +
  'field figure final find fine fire first fish five floor fly follow food foot force form found four free friend from ' +
  'front full game gave general get girl give glass go gold good got government great green ground group grow half hand ' +
  'happen hard has have head hear heart heat help her here high him his history hold home hope horse hot hour house how ' +
  'human hundred idea if important in inch interest into iron is island it job just keep kind king know land language ' +
  'large last late law lead learn leave left less let letter level life light like line list little live local long ' +
  'look love low machine made main make man many map mark market material matter may mean measure meet men mind minute ' +
  'money moon more morning most mother mountain move much music must name nation near need never new next night no north ' +
  'note nothing now number object ocean of off office often oil old on once one only open order other our out over own ' +
  'page paper part party pass past pattern pay people person picture piece place plan plane plant play point power ' +
  'present press problem process product program public pull put question quick rain ran reach read ready real record ' +
  'red remember rest result right river road rock room round rule run said same sand save saw say school science sea ' +
  'second see self send sentence service set seven several shape she ship short should show side simple since sing sit ' +
  'six size sleep slow small snow so some song soon sound south space special stand star start state step still stone ' +
  'stop story street strong study such sun sure surface system table take talk teach team tell ten test than that the ' +
  'their them then there these they thing think this those though thought thousand three through time to together too ' +
  'took top toward town travel tree true try turn two type under unit until up use usual very view voice wait walk wall ' +
  'want war warm was watch water way we week weight well went were west what wheel when where which while white who ' +
  'whole why will wind wish with woman wonder wood word work world would write year yes yet you young your'
).split(' ')
