plugins {
    kotlin("jvm")
}

kotlin {
    jvmToolchain(17)
}

// gradle :core:vectors
tasks.register<JavaExec>("vectors") {
    description = "The decoder against the golden vectors."
    classpath = sourceSets["test"].runtimeClasspath
    mainClass = "edgeface.VectorsKt"
    args(rootDir.resolve("../vectors").path)
}
