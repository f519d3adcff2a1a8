import ComposefsLinuxSystem
import ComposefsSetupRoot

Host.exitWithoutHandlers(SetupRoot.run(Host.arguments))
