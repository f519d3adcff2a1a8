import Commands

Cfsoci.start()
