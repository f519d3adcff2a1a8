import ComposefsCommands

Cfsoci.start()
