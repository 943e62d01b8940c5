"""Speech made on the spot: what espeak-ng says, the conditions it is heard in, and the sample clips."""
