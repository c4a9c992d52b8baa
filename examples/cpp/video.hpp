// Frames of a camera or of a video as RGB, by OpenCV.
#pragma once

#include <stdexcept>
#include <string>

#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>

#include "photo.hpp"

class Video {
 public:
  // source: camera:0 and so on, or a file or the address of a stream.
  explicit Video(const std::string& source) {
    if (source.rfind("camera:", 0) == 0) {
      const std::string number = source.substr(7);
      if (number.empty() || number.size() > 4 ||
          number.find_first_not_of("0123456789") != std::string::npos) {
        throw std::runtime_error(source + " names no camera: give its number, such as camera:0");
      }
      capture_.open(std::stoi(number));
      capture_.set(cv::CAP_PROP_BUFFERSIZE, 1);  // what is seen is what is there now
    } else {
      capture_.open(source);
    }
    if (!capture_.isOpened()) throw std::runtime_error("OpenCV cannot open " + source);
  }

  // False at the end.
  bool read(Photo& frame) {
    if (!capture_.read(bgr_)) return false;
    frame.width = bgr_.cols;
    frame.height = bgr_.rows;
    frame.rgb.resize(size_t(3) * bgr_.cols * bgr_.rows);
    cv::Mat rgb(bgr_.size(), CV_8UC3, frame.rgb.data());
    cv::cvtColor(bgr_, rgb, cv::COLOR_BGR2RGB);
    return true;
  }

 private:
  cv::VideoCapture capture_;
  cv::Mat bgr_;
};
