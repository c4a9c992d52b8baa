plugins {
    id("com.android.application") version "8.13.2" apply false
    kotlin("android") version "2.3.0" apply false
    kotlin("jvm") version "2.3.0" apply false
}
